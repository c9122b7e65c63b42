"""The real box through install, upgrade with a change of tables, and rollback: what was uploaded, asked and written in both releases is there.

The packages are those of the environment that runs the tests; everything else is what a site gets: generations, wrappers, guard, migrations.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import sysconfig
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from appliance.bundle.format import canonical_json
from appliance.bundle.site import operations
from appliance.bundle.site.health import HealthCheck
from appliance.bundle.site.process_service import ProcessService, read_running
from appliance.bundle.site.records import Settings
from appliance.identity.bootstrap import DATABASE_NAME
from appliance.testing.small_bundles import SmallBundle, small_trust
from services.allinone import schemas

ROOT = Path(__file__).resolve().parents[2]
MIGRATION = b'''"""A colour for threads, and a table that only this release has."""
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("gateway_threads", sa.Column("colour", sa.String(20), nullable=True))
    op.create_table("gateway_marks", sa.Column("id", sa.String(40), primary_key=True))


def downgrade() -> None:
    op.drop_table("gateway_marks")
    with op.batch_alter_table("gateway_threads") as batch:
        batch.drop_column("colour")
'''


def _bundle(sequence: int, *, newer: bool = False, ending: str = "") -> SmallBundle:
    """The project as it stands, without models; ``newer`` has one migration more."""
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "appliance", "services", "models.toml"], cwd=ROOT, capture_output=True, check=True, text=True)
    files = {f"app/{name}": (ROOT / name).read_bytes() for name in tracked.stdout.split() if (ROOT / name).is_file() and not name.startswith("appliance/testing/")}
    packages = sysconfig.get_paths()["purelib"]
    files["app/appliance/__init__.py"] += f"\nimport sys\n\nsys.path.append({packages!r})\n".encode()
    heads = schemas.heads()
    if newer:
        tables = files["app/services/gateway/tables.py"]
        heads["gateway"] = "0003"
        files["app/services/gateway/tables.py"] = tables.replace(b'head="0002"', b'head="0003"')
        files["app/services/gateway/migrations/v0003_marks.py"] = MIGRATION
        assert files["app/services/gateway/tables.py"] != tables
    files["meta/release.json"] = canonical_json.encode({"schema_heads": heads, "ending": ending})
    return SmallBundle(trust=small_trust(), files=files, sequence=sequence)


def test_the_list_of_databases_names_the_right_files() -> None:
    assert [path.name for path in schemas.databases(Path("/home"))] == ["box.db", DATABASE_NAME, "knowledge.db"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_documents_and_threads_of_both_releases_survive_the_rollback(tmp_path: Path) -> None:
    first, second = _bundle(1), _bundle(2, newer=True)
    site, home = tmp_path / "site", tmp_path / "home"
    settings = Settings(str(home), service="process", port=0)
    wishes = operations.Wishes(first.trust.pin, check=HealthCheck(60))
    try:
        operations.install(site, first.write(tmp_path / "1.bundle"), settings, wishes)
        _write(home, "first", "The pump in hall seven is serviced every 30 days.")
        operations.upgrade(site, second.write(tmp_path / "2.bundle"), wishes)
        assert _version(home) == "0003"
        _write(home, "second", "The boiler in hall nine is serviced every 90 days.")
        started = time.monotonic()
        done = operations.rollback(site, check=HealthCheck(60))
        print(f"rollback to ready: {time.monotonic() - started:.1f} s", file=sys.stderr)
        assert "gateway 0003 → 0002" in done.data
        assert _version(home) == "0002"
        with _client(home) as box:
            names = {document["name"] for document in box.get("/api/documents").raise_for_status().json()["data"]}
            titles = {thread["title"] for thread in box.get("/api/threads").raise_for_status().json()["data"]}
        assert names == {"first.txt", "second.txt"}
        assert titles == {"first", "second"}
    finally:
        ProcessService(settings, site).stop()


def _client(home: Path) -> httpx.Client:
    key = (home / "admin.key").read_text().strip()
    return httpx.Client(base_url=read_running(home)["url"], headers={"authorization": f"Bearer {key}"}, timeout=60, trust_env=False)


def _write(home: Path, name: str, text: str) -> None:
    """A document and a thread."""
    with _client(home) as box:
        box.post("/api/documents", files={"file": (f"{name}.txt", text.encode(), "text/plain")}).raise_for_status()
        box.post("/api/threads", json={"title": name}).raise_for_status()


def _version(home: Path) -> str:
    with closing(sqlite3.connect(home / "box.db")) as box:
        return box.execute("SELECT version_num FROM gateway_schema_version").fetchone()[0]

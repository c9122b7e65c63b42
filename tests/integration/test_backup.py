"""A node is lost: what was acknowledged before the backup is there again, and nothing else is believed than what the box signed."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from appliance.audit.log import AuditLog
from appliance.audit.signing import load_or_create_key, load_public_key
from appliance.audit.verify import verify_log
from appliance.backup.archive import INDEX
from appliance.backup.restore import restore_backup
from appliance.backup.take import take_backup
from appliance.home import Home
from appliance.kit.errors import ApplianceError
from appliance.testing.box_process import ROOT, box_process
from tests.integration.real_box import load_demo, settled, upload


def ask(client, question: str, space: str) -> str:
    body = {"model": "default", "messages": [{"role": "user", "content": question}], "spaces": [space]}
    return client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def cli(*arguments: str, home: Path) -> dict:
    import os

    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *arguments], cwd=ROOT, env={**os.environ, "APPLIANCE_HOME": str(home)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_lost_node_comes_back_from_a_backup_taken_while_it_worked(tmp_path: Path) -> None:
    home, saved = tmp_path / "home", tmp_path / "box.backup"
    with box_process(home) as box, box.client() as client:
        load_demo(client)
        before = ask(client, "When does the supply contract end?", "legal")
        assert "31 March 2027" in before
        threads = client.get("/api/threads").json()
        late = upload(client, "legal", ("still_being_read.txt", b"The backup is taken while this is on its way. " * 2000))[0]["document"]["id"]
        report = cli("backup", "-o", str(saved), "--json", home=home)
        assert report["bytes"] == saved.stat().st_size
        assert saved.stat().st_mode & 0o077 == 0
    (tmp_path / "audit.pub.pem").write_bytes((home / "keys" / "audit.pub.pem").read_bytes())
    shutil.rmtree(home)

    again = tmp_path / "again"
    restored = cli("restore", str(saved), "--home", str(again), "--public-key", str(tmp_path / "audit.pub.pem"), "--json", home=again)
    assert restored["audit_records"] > 20
    with box_process(again) as box, box.client() as client:
        settled(client, late)
        assert ask(client, "When does the supply contract end?", "legal") == before
        assert client.get("/api/threads").json() == threads
        names = {row["name"] for row in client.get("/api/documents", params={"space": "legal"}).json()["data"]}
        assert {"supply_contract.pdf", "still_being_read.txt"} <= names
    assert verify_log(again / "audit", load_public_key(again / "keys" / "audit.pub.pem")).is_whole


def append_one_record(home: Home) -> None:
    async def append() -> None:
        async with await AuditLog.open(home.audit, load_or_create_key(home.keys)) as log:
            await log.append(actor="user:a", action="thing.make", resource="thing:1", outcome="ok")

    asyncio.run(append())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup of a home with a key, a file and no box."""
    home = Home(tmp_path / "small")
    home.create()
    append_one_record(home)
    (home.path / "models.toml").write_text("schema_version = 1\n")
    take_backup(home, tmp_path / "small.backup")
    return tmp_path / "small.backup"


def refused(archive: Path, where: Path, **more: object) -> str:
    with pytest.raises(ApplianceError) as caught:
        restore_backup(archive, Home(where), **more)  # type: ignore[arg-type]
    assert not where.exists() or not any(where.iterdir()), "nothing may be in place after a refusal"
    assert [path for path in where.parent.iterdir() if "restoring" in path.name] == []
    assert caught.value.hint
    return caught.value.code


def test_every_flipped_byte_of_a_backup_is_found(saved: Path, tmp_path: Path) -> None:
    good = saved.read_bytes()
    for position in [*range(0, len(good), 997), len(good) // 2]:
        bad = bytearray(good)
        bad[position] ^= 0x40
        saved.write_bytes(bad)
        try:
            restored = restore_backup(saved, Home(tmp_path / f"home-{position}"))
        except ApplianceError as refusal:
            assert refusal.code in {"bundle_invalid", "bundle_altered", "bundle_unsigned", "home_invalid"}
        else:  # only bytes that carry nothing (tar padding, header fields that are not used) may differ
            files = {file.path: (restored.home / file.path).read_bytes() for file in restored.index.files}
            assert {path: len(content) for path, content in files.items()} == {file.path: file.size for file in restored.index.files}


def test_a_short_backup_is_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 100, 512, 2048, len(content) // 2):
        saved.write_bytes(content[:length])
        assert refused(saved, tmp_path / "home") == "bundle_invalid"


def test_a_backup_of_another_box_is_refused_when_its_key_is_known(saved: Path, tmp_path: Path) -> None:
    stranger = load_or_create_key(tmp_path / "other" / "keys").public_key()
    assert refused(saved, tmp_path / "home", public=stranger) == "bundle_unsigned"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "link"])
def test_members_that_lead_out_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    evil = tmp_path / "evil.backup"
    with tarfile.open(saved) as good, tarfile.open(evil, "w") as bad:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        else:
            entry.size = 1
        bad.addfile(entry, io.BytesIO(b"x"))
        for member in good:
            bad.addfile(member, good.extractfile(member))
    assert refused(evil, tmp_path / "home") == "bundle_invalid"


def test_a_member_after_the_index_is_refused(saved: Path, tmp_path: Path) -> None:
    with tarfile.open(saved, "a") as archive:
        extra = tarfile.TarInfo("extra")
        extra.size = 1
        archive.addfile(extra, io.BytesIO(b"x"))
    with tarfile.open(saved) as archive:
        assert archive.getnames()[-2:] == [INDEX, "extra"]
    assert refused(saved, tmp_path / "home") == "bundle_invalid"


def test_a_home_that_is_there_is_kept(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "precious").write_text("mine")
    with pytest.raises(ApplianceError, match="not empty"):
        restore_backup(saved, Home(tmp_path / "home"))
    done = restore_backup(saved, Home(tmp_path / "home"), replace=True)
    assert done.aside is not None
    assert (done.aside / "precious").read_text() == "mine"
    assert (tmp_path / "home" / "models.toml").exists()

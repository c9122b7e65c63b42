"""House rules that a machine can check: layout, sizes, names, addresses, tours, the error table, migrations."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_LINES = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_modules_stay_readable() -> None:
    long = {str(path.relative_to(ROOT)): count for path in tracked("*.py") if (count := len(path.read_text().splitlines())) > LIMIT_LINES}
    assert long == {}


def test_names_say_something() -> None:
    assert [str(path) for path in tracked("*.py") if path.stem in VAGUE] == []


def test_every_module_says_what_it_owns() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in tracked("appliance/*.py", "services/*.py")
        if not path.stem.endswith("_pb2") and path.read_text().strip() and not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert bare == []


def test_no_registry_address_is_committed() -> None:
    hosts = re.compile("|".join(["pypi" + r"\.org", "python" + r"hosted\.org", "npm" + r"js\.(org|com)", "deb" + r"\.debian\.org"]))
    found = [str(path) for path in tracked() if path.suffix not in {".pdf", ".docx", ".xlsx", ".pptx", ".png"} and hosts.search(path.read_text(errors="ignore"))]
    assert found == []


@pytest.mark.parametrize("tour", sorted((ROOT / "docs" / "tours").glob("*.md")), ids=lambda path: path.stem)
def test_tours_lead_through_files_that_exist(tour: Path) -> None:
    named = re.findall(r"`((?:appliance|services|docs|tests|bench|ansible|bundles|smoke-tests|scripts)/[\w./-]+)`", tour.read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_adrs_have_the_house_form() -> None:
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        text = path.read_text()
        for section in ("Context", "Decision", "Consequences", "Alternatives"):
            assert re.search(rf"^#+ {section}", text, re.M), f"{path.name} lacks {section}"


def test_error_table_is_complete_and_sane() -> None:
    from appliance.kit.errors import OUTCOMES

    used = set()
    for path in tracked("appliance/*.py", "services/*.py"):
        used.update(re.findall(r"ApplianceError\(\s*\"(\w+)\"", path.read_text()))
    assert used <= set(OUTCOMES)
    for code, outcome in OUTCOMES.items():
        assert 400 <= outcome.http <= 599, code
        assert outcome.exit == 1 if code == "internal" else 2 <= outcome.exit <= 63, code
        assert outcome.grpc.isupper()


def test_schema_heads_are_the_last_migrations() -> None:
    from alembic.script import ScriptDirectory

    for module in ("appliance.identity.tables", "services.retrieval.tables", "services.gateway.tables", "services.knowledge.tables", "services.sgr.tables"):
        schema = importlib.import_module(module).SCHEMA
        folder = str(Path(importlib.import_module(schema.migrations).__file__).parent)
        assert ScriptDirectory(folder, version_locations=[folder]).get_heads() == [schema.head]


def test_nothing_heavy_is_imported_by_the_library() -> None:
    """torch is not a dependency, and no module of ours imports it."""
    for path in tracked("appliance/*.py", "services/*.py"):
        assert not re.search(r"^\s*(import|from) (torch|transformers|sentence_transformers)\b", path.read_text(), re.M), path


def test_all_packages_have_an_init() -> None:
    for package in ("appliance", "services"):
        for info in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if info.ispkg:
                assert (ROOT / info.name.replace(".", "/") / "__init__.py").exists()


def test_requirements_name_tests_that_exist() -> None:
    text = (ROOT / "docs" / "requirements.md").read_text()
    named = re.findall(r"`((?:tests|bench)/[\w./*-]+)`", text)
    assert len(named) > 20
    assert [name for name in named if not list(ROOT.glob(name.rstrip("/")))] == []
    states = re.findall(r"^\| [A-Z]+-\d+ \| (\w+) \|", text, re.M)
    assert set(states) <= {"done", "partial", "planned"}
    assert len(states) >= 50


def test_every_benchmark_in_the_list_has_a_module() -> None:
    from bench.list import NAMES

    assert [name for name in NAMES if not (ROOT / "bench" / f"{name.replace('-', '_')}.py").exists()] == []

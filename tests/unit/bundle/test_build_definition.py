"""A definition is read strictly; what a build cannot take it refuses, naming it."""

from __future__ import annotations

from email.message import Message
from pathlib import Path

import pytest

from appliance.bundle.build.apt_closure import _file_names
from appliance.bundle.build.contents import Collected, Package
from appliance.bundle.build.deb_facts import control_fields, licences_of
from appliance.bundle.build.definition import read_definition
from appliance.bundle.build.licences import check_policy
from appliance.bundle.build.lock_file import read_lock
from appliance.bundle.build.release_facts import schema_heads
from appliance.bundle.build.wheel_metadata import licence_of
from appliance.kit.errors import ApplianceError
from tests.unit.bundle.build_bed import DEFINITION, DOCS, IMAGES, MODELS, PROJECT, WHEELS

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", sorted(path.name for path in (REPOSITORY / "bundles").glob("*.toml")))
def test_the_definitions_of_the_repository_are_valid(name: str) -> None:
    definition = read_definition(REPOSITORY / "bundles" / name)
    assert definition.root == REPOSITORY
    assert {"wheelhouse", "project", "models", "os-packages", "ansible", "smoke-tests", "docs"} <= {part.kind for part in definition.components}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (DEFINITION, "component"),
        (DEFINITION.replace("schema_version = 1", "schema_version = 2") + DOCS, "schema_version"),
        ("color = 1\n" + DEFINITION + DOCS, "color: unknown key"),
        (DEFINITION.replace('glibc = "2.36"', 'glibc = "2.36"\ncpu = "x"') + DOCS, "target.cpu: unknown key"),
        (DEFINITION.replace('glibc = "2.36"', 'glibc = "musl"') + DOCS, "target.glibc"),
        (DEFINITION.replace("valid_days = 30", "valid_days = 0") + DOCS, "valid_days"),
        (DEFINITION.replace('name = "small"', 'name = "Small Bundle"') + DOCS, "name"),
        (DEFINITION + DOCS + DOCS, "names must differ"),
        (DEFINITION + DOCS.replace('"docs"\nkind', '"d"\npackages = ["x"]\nkind'), "packages: unknown key"),
        (DEFINITION + DOCS.replace('kind = "docs"', 'kind = "metadata"'), "kind"),
        (DEFINITION + DOCS.replace('include = ["docs/*"]', "include = []"), "include"),
        (DEFINITION + WHEELS.replace('["requirements/runtime.lock"]', '"requirements/runtime.lock"'), "expected a list"),
        (DEFINITION + WHEELS + 'folder = "../up"\n', "folder"),
        (DEFINITION + IMAGES + "optional = 1\n", "optional"),
        (DEFINITION + "[licences]\n", "licences"),
        ("not toml", "="),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, text: str, names: str) -> None:
    (tmp_path / "pyproject.toml").touch()
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(ApplianceError) as caught:
        read_definition(path)
    assert caught.value.code == "invalid_request"
    assert names in caught.value.message
    assert str(path) in caught.value.message


def test_a_definition_outside_a_source_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(DEFINITION + PROJECT + MODELS)
    with pytest.raises(ApplianceError, match="pyproject"):
        read_definition(tmp_path / "d.toml")


@pytest.mark.parametrize("line", ["numpy>=1", "numpy==1.0", "numpy==1.0 ; os_name == 'nt' --hash=sha256:" + "0" * 64, "-r other.lock", "--index-url x"])
def test_a_lock_has_pins_with_hashes_and_nothing_else(tmp_path: Path, line: str) -> None:
    (tmp_path / "l.lock").write_text(line)
    with pytest.raises(ApplianceError, match="expected name==version with hashes"):
        read_lock(tmp_path / "l.lock")


def package(licence: str, *, is_spdx: bool = True) -> Collected:
    return Collected("wheels", "wheelhouse", "1", (), (Package("library", "spy", "2", "pkg:pypi/spy@2", licence, is_spdx, "0" * 64),))


@pytest.mark.parametrize(
    ("licence", "is_spdx"),
    [
        ("AGPL-3.0-only", True),
        ("MIT AND AGPL-3.0-or-later", True),
        ("(MIT OR AGPL-3.0-only)", True),
        ("GNU Affero General Public License v3", False),
        ("agpl v3", False),
    ],
)
def test_a_denied_licence_stops_the_build_by_name(licence: str, is_spdx: bool) -> None:
    with pytest.raises(ApplianceError, match=r"spy 2 \("):
        check_policy([package(licence, is_spdx=is_spdx)], ["AGPL"], {})
    check_policy([package(licence, is_spdx=is_spdx)], ["AGPL"], {"spy": "a reason"})


@pytest.mark.parametrize("licence", ["MIT OR AGPL-3.0-only", "GPL-3.0-only", "Apache-2.0", "unknown"])
def test_what_is_not_denied_or_a_free_choice_passes(licence: str) -> None:
    check_policy([package(licence)], ["AGPL"], {})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"License-Expression": "Apache-2.0 OR MIT", "License": "x"}, ("Apache-2.0 OR MIT", True)),
        ({"License": "BSD-3-Clause", "Classifier": "License :: OSI Approved :: BSD License"}, ("BSD-3-Clause", False)),
        ({"License": "Copyright me\n\nlong text", "Classifier": "License :: OSI Approved :: MIT License"}, ("MIT License", False)),
        ({"License": "A" * 5000}, ("A" * 120, False)),
        ({"License": "evil\x1b[2J"}, ("evil[2J", False)),
        ({}, ("unknown", False)),
    ],
)
def test_the_licence_of_a_wheel_is_the_most_exact_that_it_states(headers: dict[str, str], expected: tuple[str, bool]) -> None:
    metadata = Message()
    for key, value in headers.items():
        metadata.add_header(key, value)
    assert licence_of(metadata) == expected


def test_the_licence_of_a_deb_is_read_from_its_copyright_file() -> None:
    assert licences_of("Format: x\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: MIT\n\nLicense: GPL-2+\n ...") == "GPL-2+ AND MIT"
    assert licences_of("The text is in /usr/share/common-licenses/GPL-2.\n") == "GPL-2"
    assert licences_of("all rights reversed") == "unknown"


def test_control_fields_keep_folded_lines() -> None:
    assert control_fields("Package: a\nVersion: 1\nDescription: b\n c\n .\n d\nDepends: e\n")["Depends"] == "e"


def test_nothing_that_apt_names_is_left_out() -> None:
    known = "'u://m/p/a_1%3a2-3_amd64.deb' a_1%3a2-3_amd64.deb 573012 SHA256:00\n'u://m/p/b_1_all.deb' b_1_all.deb 7 \nReading lists...\n"
    assert _file_names(known) == {"a_1:2-3_amd64.deb", "b_1_all.deb"}
    with pytest.raises(ApplianceError, match="not understood"):
        _file_names(known + "'u://m/p/c_1_all.deb' c 1 all\n")
    with pytest.raises(ApplianceError, match="names 0 packages"):
        _file_names("")


def test_schema_heads_are_those_the_code_opens_its_databases_with() -> None:
    from appliance.identity.tables import SCHEMA as IDENTITY
    from services.gateway.tables import SCHEMA as GATEWAY
    from services.knowledge.tables import SCHEMA as KNOWLEDGE
    from services.retrieval.tables import SCHEMA as RETRIEVAL
    from services.sgr.tables import SCHEMA as SGR

    sources = [path for folder in ("appliance", "services") for path in (REPOSITORY / folder).rglob("*.py")]
    heads = schema_heads(sources)
    assert {schema.name: schema.head for schema in (IDENTITY, GATEWAY, KNOWLEDGE, RETRIEVAL, SGR)} == heads


def test_a_schema_that_is_not_written_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tables.py").write_text("HEAD = '1'\nSCHEMA = Schema(name='a', head=HEAD)\n")
    with pytest.raises(ApplianceError, match="written out"):
        schema_heads([tmp_path / "tables.py"])

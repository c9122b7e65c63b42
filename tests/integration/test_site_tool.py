"""The tool that a site keeps is the one that did the work, is on record, and is never replaced by an older one."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from appliance.bundle.site import first_contact
from appliance.bundle.site.confirm import write_tools
from appliance.bundle.site.durable import put_file
from appliance.bundle.site.first_contact import TOOL_VERSION, tool_version, write_zipapp, zipapp_bytes
from appliance.bundle.site.inspection import history
from appliance.bundle.site.layout import open_site
from tests.integration.fake_release import FakeRelease
from tests.integration.site_bed import SiteBed

EXCHANGED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from appliance.bundle.site import __main__ as program, confirm
from appliance.bundle.site.layout import open_site
try:
    program.main(["status", "--site", sys.argv[2]])
finally:
    Path(sys.argv[1]).write_bytes(b"evil")
    confirm.write_tools(open_site(Path(sys.argv[2])))
"""


def _of_version(version: int) -> bytes:
    """The tool as another release would make it."""
    ours = zipapp_bytes()
    comment = f"appliance-tool {TOOL_VERSION}".encode()
    other = f"appliance-tool {version}".encode()
    assert ours.endswith(len(comment).to_bytes(2, "little") + comment)
    return ours[: -len(comment) - 2] + len(other).to_bytes(2, "little") + other


def test_an_exchanged_medium_does_not_become_the_tool_of_the_site(tmp_path: Path) -> None:
    installer = write_zipapp(tmp_path / "medium.pyz")
    good = installer.read_bytes()
    site = open_site(tmp_path / "site", create=True)
    program = [sys.executable, "-I", "-c", EXCHANGED, str(installer), str(site.path)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    assert installer.read_bytes() == b"evil"
    assert site.tool.read_bytes() == good


def test_an_older_tool_does_not_replace_a_newer_one_and_a_newer_replaces_an_older_one(tmp_path: Path) -> None:
    site = open_site(tmp_path / "site", create=True)
    newer, older = _of_version(TOOL_VERSION + 1), _of_version(TOOL_VERSION - 1)
    assert [tool_version(tool) for tool in (newer, older, b"no installer")] == [TOOL_VERSION + 1, TOOL_VERSION - 1, 0]
    put_file(site.tool, newer)
    write_tools(site)
    assert site.tool.read_bytes() == newer
    put_file(site.tool, older)
    write_tools(site)
    assert site.tool.read_bytes() == first_contact.zipapp_bytes()


def test_the_history_names_the_tool_that_did_it(tmp_path: Path) -> None:
    bed = SiteBed(tmp_path)
    bed.install(FakeRelease(1), service="none")
    (entry,) = history(bed.site)
    assert entry["detail"]["tool_sha256"] == sha256(bed.site.tool.read_bytes()).hexdigest()
    tool = [sys.executable, "-I", str(bed.site.tool), "status", "--site", str(bed.site.path), "--json"]
    assert json.loads(subprocess.run(tool, capture_output=True, check=True, timeout=30).stdout)["current"] == FakeRelease(1).generation

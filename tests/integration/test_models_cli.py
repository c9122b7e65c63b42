"""``appliance models`` as an operator types it: data on stdout, talk on stderr, exit codes from the table; ``add`` against a stand-in hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.main import main
from appliance.hub.leases import lease
from appliance.hub.snapshots import open_snapshot
from appliance.kit.errors import OUTCOMES
from tests.integration.hub_server import COMMIT, hub_server
from tests.unit.model_files import gguf, write_hf, write_ollama


class Site:
    """A home and the command line on it, run in this process: an interpreter's start for every line would be most of the time."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, printed: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._patch = patch
        self._printed = printed

    def run(self, *arguments: str, code: str = "", **variables: str) -> str:
        with self._patch.context() as patch:
            patch.setenv("APPLIANCE_HOME", str(self.home))
            patch.setattr(sys, "argv", ["appliance", "models", *arguments])
            for name, value in variables.items():
                patch.setenv(name, value)
            mask = os.umask(0o077)
            try:
                with pytest.raises(SystemExit) as end:
                    main()
            finally:
                os.umask(mask)
        done = self._printed.readouterr()
        assert end.value.code == (OUTCOMES[code].exit if code else 0), done.err
        if code:
            assert "hint: " in done.err
            assert f"({code})" in done.err or code in {"snapshot_altered"}
        return done.out

    def json(self, *arguments: str, **variables: str) -> Any:
        return json.loads(self.run(*arguments, "--json", **variables))

    def elsewhere(self, name: str) -> Site:
        return Site(self.folder / name, self._patch, self._printed)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    for name in ("APPLIANCE_GENERATION", "HF_ENDPOINT", "APPLIANCE_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return Site(tmp_path, monkeypatch, capsys)


def test_a_model_comes_in_is_switched_kept_carried_and_collected(site: Site) -> None:
    place = str(write_hf(site.folder / "hf"))
    first = site.json("import", place, "--kind", "llm", "--name", "tiny", "--languages", "en,ru", "--license", "MIT")
    assert (first["snapshot"], first["alias"]) == ("llm/tiny-v1", "llm.tiny")
    write_hf(site.folder / "hf", marker="new")
    assert site.json("import", place, "--kind", "llm", "--name", "tiny")["alias"] is None
    change = site.json("alias", "llm.tiny", "llm/tiny-v2")
    assert (change["before"], change["after"], change["changed"]) == ("llm/tiny-v1", "llm/tiny-v2", True)
    assert site.json("alias", "llm.tiny", "llm/tiny-v2")["changed"] is False
    assert site.json("pin", "llm/tiny-v1") == {"snapshot": "llm/tiny-v1", "pinned": True, "changed": True}
    assert site.json("gc")["freed_bytes"] == 0
    site.run("gc", "llm/tiny-v1", code="conflict")
    site.run("unpin", "llm/tiny-v1")
    with lease(open_snapshot(site.home / "models", "llm/tiny-v1")):
        site.run("gc", "llm/tiny-v1", code="model_in_use")
    assert [row["verdict"] for row in site.json("gc", "llm/tiny-v1")["data"]] == ["removed"]
    assert [row["snapshot"] for row in site.json("list", "--snapshots")["data"]] == ["llm/tiny-v2"]
    assert site.json("show", "llm.tiny")["state"] == "ok"
    site.run("verify", "llm.tiny")
    carried = site.json("export", "llm.tiny", "--to", str(site.folder / "stick"))
    assert carried["sent_bytes"] > 0
    other = site.elsewhere("other")
    other.run("import", str(site.folder / "stick"), code="snapshot_unsigned")
    arrived = other.json("import", str(site.folder / "stick"), "--trust-key", str(site.home / "keys" / "models.pub.pem"), "--alias", "chat")
    assert (arrived["digest"], arrived["alias"]) == (carried["digest"], "llm.chat")
    other.run("verify", "llm.chat")


def test_what_is_altered_is_named_and_ends_with_its_code(site: Site) -> None:
    (site.folder / "x.gguf").write_bytes(gguf())
    site.run("import", str(site.folder / "x.gguf"), "--kind", "llm", "--name", "x")
    file = site.home / "models" / "llm" / "x-v1" / "x.gguf"
    file.chmod(0o644)
    file.write_bytes(gguf(context=1))
    shown = site.json("list")["data"]
    assert {row["alias"]: row["state"] for row in shown if row["kind"] == "llm"}["x"] == "ok"  # a list does not read the weights
    assert "x.gguf" in site.run("verify", "llm.x", code="snapshot_altered")
    (site.home / "models" / "llm" / "x-v1" / "model.sig").unlink()
    assert {row["alias"]: row["state"] for row in site.json("list")["data"]}["x"] == "snapshot_unsigned"


def test_refusals_have_code_hint_and_status(site: Site) -> None:
    (site.folder / "model.bin").write_bytes(b"x")
    site.run("import", str(site.folder / "model.bin"), "--kind", "llm", "--name", "x", code="model_refused")
    site.run("import", str(site.folder / "absent"), "--kind", "llm", "--name", "x", code="not_found")
    site.run("import", str(site.folder / "model.bin"), code="invalid_request")
    site.run("alias", "llm.x", "llm/x-v1", code="snapshot_missing")
    site.run("alias", "x", "llm/x-v1", code="invalid_request")
    site.run("export", "llm.x", "--to", "s3://bucket", code="model_not_found")
    site.run("import", "s3://bucket/x", code="invalid_request")
    store = write_ollama(site.folder / "ollama", "1b", "3b")
    site.run("import", str(store), "--kind", "llm", "--name", "x", code="invalid_request")
    assert site.json("import", str(store), "--pick", "tiny:3b", "--kind", "llm", "--name", "x")["snapshot"] == "llm/x-v1"


def test_add_fetches_what_is_no_pickle_and_imports_it(site: Site) -> None:
    folder = write_hf(site.folder / "repo")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling.py").write_text("import os")
    with hub_server("org/tiny", folder) as server:
        added = site.json("add", "org/tiny@main", "--kind", "llm", "--endpoint", server.endpoint, HF_HUB_OFFLINE="1")
    assert (added["snapshot"], added["alias"]) == ("llm/tiny-v1", "llm.tiny")
    assert sorted(set(server.asked)) == ["README.md", "config.json", "model-00001-of-00001.safetensors", "tokenizer.json"]
    snapshot = open_snapshot(site.home / "models", "llm/tiny-v1")
    assert (snapshot.index.created_from["repository"], snapshot.index.created_from["revision"]) == ("org/tiny", COMMIT)
    assert not list((site.home / "models" / ".fetch").iterdir())


def test_add_says_what_is_wrong_and_is_refused_on_a_sealed_site(site: Site) -> None:
    with hub_server("org/tiny", write_hf(site.folder / "repo")) as server:
        site.run("add", "org/absent", "--kind", "llm", "--endpoint", server.endpoint, code="unavailable")
        server.asked.clear()
        site.run("add", "org/tiny", "--kind", "llm", "--endpoint", server.endpoint, code="forbidden", APPLIANCE_GENERATION=str(site.folder))
        assert server.asked == []
    site.run("add", "../etc", "--kind", "llm", code="invalid_request")


@pytest.mark.parametrize("verb", ["list", "show", "add", "import", "verify", "alias", "pin", "unpin", "gc", "export", "bench"])
def test_every_verb_helps_with_an_example(site: Site, verb: str) -> None:
    assert f"appliance models {verb}" in site.run(verb, "--help", COLUMNS="200")

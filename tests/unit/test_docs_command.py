"""``appliance docs``: which files are taken, how rows are told, how a document is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from appliance.cli import docs
from appliance.cli.box_client import BoxClient
from appliance.cli.pick_files import pick_files
from appliance.kit.errors import ApplianceError

LISTED = [
    {"id": "d1", "space": "legal", "name": "contract.pdf"},
    {"id": "d2", "space": "hr", "name": "contract.pdf"},
    {"id": "d3", "space": "hr", "name": "leave policy.md"},
]


def box() -> BoxClient:
    """A box with three documents."""

    def answer(request: httpx.Request) -> httpx.Response:
        tail = request.url.path.rpartition("/")[2]
        if tail == "documents":
            space = request.url.params.get("space")
            return httpx.Response(200, json={"data": [row for row in LISTED if space in {None, row["space"]}], "has_more": False})
        found = [row for row in LISTED if row["id"] == tail]
        return httpx.Response(200, json=found[0]) if found else httpx.Response(404, json={"error": {"code": "not_found", "message": "no"}})

    return BoxClient(httpx.Client(transport=httpx.MockTransport(answer), base_url="http://box"))


@pytest.mark.parametrize(
    ("wanted", "space", "found"), [("d2", None, "d2"), ("leave policy.md", None, "d3"), ("contract.pdf", "legal", "d1"), ("contract.pdf", "hr", "d2")]
)
def test_a_document_is_found_by_id_or_by_a_name_that_is_unique(wanted: str, space: str | None, found: str) -> None:
    assert docs._find(box(), wanted, space)["id"] == found  # noqa: SLF001 - the rule itself, without a terminal


@pytest.mark.parametrize(("wanted", "code"), [("contract.pdf", "conflict"), ("absent.pdf", "not_found")])
def test_a_name_of_several_documents_or_of_none_is_refused(wanted: str, code: str) -> None:
    with pytest.raises(ApplianceError) as caught:
        docs._find(box(), wanted, None)  # noqa: SLF001
    assert caught.value.code == code
    assert caught.value.hint


def test_a_folder_gives_its_files_and_says_what_it_left_out(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "secret.txt"
    (folder / "sub").mkdir(parents=True)
    outside.write_text("secret")
    (folder / "sub" / "a.txt").write_text("a")
    (folder / ".hidden").write_text("h")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("c")
    os.mkfifo(folder / "pipe")
    (folder / "out.txt").symlink_to(outside)
    (folder / "gone.txt").symlink_to(folder / "nothing")
    (folder / "same.txt").symlink_to(folder / "sub" / "a.txt")
    (folder / "up").symlink_to(tmp_path)
    picked = pick_files([folder])
    assert [name for _, name in picked.files] == ["same.txt", "sub__a.txt"]
    said = "\n".join(picked.skipped)
    for line in ("pipe is not a plain file", "out.txt is a link that leads out", "gone.txt is a link to nothing", "up is a link to a folder", "2 names in"):
        assert line in said
    assert len(picked.skipped) == 5


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    rows = docs.add_files(box(), [(tmp_path / "pipe", "pipe")], "default", wait=False)
    assert rows[0]["outcome"] == "refused"
    assert "not a plain file" in rows[0]["error"]["message"]


def test_every_line_about_a_file_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    warned: dict[str, Any] = {"name": "a.pdf", "outcome": "created", "document": {"chunks": 1, "warnings": [{"page": 2, "message": "scanned"}]}}
    bad: dict[str, Any] = {"name": "b.pdf", "outcome": "refused", "document": None, "error": {"code": "document_corrupt", "message": "damaged", "hint": "h"}}
    docs._report([warned, bad])  # noqa: SLF001
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["created    a.pdf  1 passage", "refused    b.pdf"]
    assert printed.err.splitlines() == ["  warning: a.pdf: page 2: scanned", "  error: b.pdf: damaged (document_corrupt)", "  hint: h"]

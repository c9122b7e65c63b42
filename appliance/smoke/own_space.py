"""A space of a smoke test's own, with a document in it: made, and removed with all it holds; what killed runs left behind, too."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from appliance.smoke.box import SmokeBox, SmokeFailure, expect, shown

_PREFIX: Final = "smoke-"
_LEFTOVER: Final = re.compile(r"smoke test (\d+)")
_LEFTOVER_SECONDS: Final = 600
_CLEAN_SECONDS: Final = 10.0


@contextmanager
def own_space(box: SmokeBox) -> Iterator[str]:
    """The name of a new space; it is gone afterwards, whatever happened."""
    _remove_leftovers(box)
    space = f"{_PREFIX}{secrets.token_hex(6)}"
    box.post("/api/spaces", {"name": space, "title": f"smoke test {int(time.time())}"})
    try:
        yield space
    finally:
        box.start_clock(_CLEAN_SECONDS)  # cleaning up has time of its own
        box.delete(f"/api/spaces/{space}", force="true")


def add_text(box: SmokeBox, space: str, name: str, text: str) -> str:
    """Put a document in; its id, once it is read."""
    taken = box.upload(space, name, text.encode())
    expect(taken["document"], f"the document was refused: {shown(taken)}")
    identifier = str(taken["document"]["id"])
    while (document := box.get(f"/api/documents/{identifier}"))["status"] not in {"ready", "failed"}:
        box.left_seconds()
        time.sleep(0.02)
    expect(document["status"] == "ready", f"the document was not read: {shown(document['error'])}")
    return identifier


def _remove_leftovers(box: SmokeBox) -> None:
    for space in box.get("/api/spaces")["data"]:
        made = _LEFTOVER.fullmatch(space["title"])
        if space["name"].startswith(_PREFIX) and made and time.time() - int(made[1]) > _LEFTOVER_SECONDS:
            with suppress(SmokeFailure):  # another run may be faster
                box.delete(f"/api/spaces/{space['name']}", force="true")

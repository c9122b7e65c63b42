"""Loading the demo library of the repository into a box: two spaces with different readers, documents in both languages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console

from appliance.cli.box_client import box_client
from appliance.cli.docs import add_files
from appliance.kit.errors import ApplianceError

_LIBRARY: Final = Path(__file__).resolve().parents[2] / "demo" / "library"
talk = Console(stderr=True, highlight=False)


def load_demo() -> None:
    """Create the demo spaces and upload the library; safe to repeat (the same content changes nothing).

    Raises:
        ApplianceError: ``not_found`` when this installation carries no demo library.
    """
    if not _LIBRARY.is_dir():
        raise ApplianceError("not_found", "this installation carries no demo library", hint="run from a clone of the repository")
    with box_client() as box:
        known = {space["name"] for space in box.get("/api/spaces")["data"]}
        for folder in sorted(path for path in _LIBRARY.iterdir() if path.is_dir()):
            if folder.name not in known:
                box.post("/api/spaces", {"name": folder.name, "title": folder.name.capitalize()})
            rows = add_files(box, [(file, file.name) for file in sorted(folder.iterdir()) if file.is_file()], folder.name)
            talk.print(f"demo space {folder.name}: {len(rows)} documents")

"""``appliance-install.pyz``: the verifier and installer as one file for a bare ``python3``. The same modules give the same bytes.

Owns which modules belong to it: those that need the standard library only. The file that is carried beside a bundle, and ``bin/site.pyz`` of a
site, are made here. A process hands on the bytes it was started from, read once: the medium may be exchanged while it works.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import appliance
from appliance.bundle.site.durable import put_file

NAME: Final = "appliance-install.pyz"
TOOL_VERSION: Final = 1
"""Raised when a record or a step of a site changes so that an older tool may not work on it; stands in the comment of the file."""
_COMMENT: Final = b"appliance-tool "
_MODULES: Final = ("__init__.py", "kit/__init__.py", "kit/errors.py", "bundle/__init__.py", "bundle/verify.py", "bundle/reader.py")
_PACKAGES: Final = ("bundle/format", "bundle/site")
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_MAIN: Final = b"import sys\n\nfrom appliance.bundle.site.__main__ import main\n\nsys.exit(main())\n"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def write_zipapp(path: Path) -> Path:
    """Write the installer to ``path`` and return it. Raises ``disk_full``, ``site_invalid``."""
    put_file(path, zipapp_bytes(), mode=0o755)
    return path


@cache
def zipapp_bytes() -> bytes:
    """The installer. Run out of an installer it is that very file, as it was at the first call."""
    archive = getattr(getattr(appliance, "__loader__", None), "archive", None)
    if archive is not None:
        return Path(archive).read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as zipped:
        for name, data in [("__main__.py", _MAIN), *_sources(Path(appliance.__file__).parent)]:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            zipped.writestr(entry, data)
        zipped.comment = _COMMENT + str(TOOL_VERSION).encode()
    return _SHEBANG + buffer.getvalue()


def tool_version(tool: bytes) -> int:
    """Version of an installer; 0 for none, and for what is no installer."""
    try:
        with zipfile.ZipFile(io.BytesIO(tool)) as zipped:
            return int(zipped.comment.removeprefix(_COMMENT)) if zipped.comment.startswith(_COMMENT) else 0
    except (zipfile.BadZipFile, ValueError):
        return 0


def _sources(root: Path) -> Iterator[tuple[str, bytes]]:
    names = [*_MODULES, *(f"{package}/{path.name}" for package in _PACKAGES for path in sorted((root / package).glob("*.py")))]
    for name in names:
        yield f"appliance/{name}", (root / name).read_bytes()

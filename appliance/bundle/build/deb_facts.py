"""Reads what a Debian package says of itself: control fields and licences. Through ``dpkg-deb``, streaming and within bounds."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

from appliance.bundle.build.contents import UNKNOWN
from appliance.kit.errors import ApplianceError

MAX_CONTROL_BYTES: Final = 1024 * 1024
MAX_COPYRIGHT_BYTES: Final = 4 * 1024 * 1024
MAX_MEMBERS: Final = 500_000
_TIMEOUT_SECONDS: Final = 120
_FIELD: Final = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
_LICENCE: Final = re.compile(r"^License:[ \t]*([A-Za-z0-9][A-Za-z0-9 .,+()/-]*)$", re.MULTILINE)
_COMMON: Final = re.compile(r"/usr/share/common-licenses/([A-Za-z][A-Za-z0-9.-]*)")
_MAX_LICENCES: Final = 24


def read_control(deb: Path) -> str:
    """The control paragraph, as it stands in the package.

    Raises:
        ApplianceError: ``unavailable`` when the file is no package.
    """
    try:
        done = subprocess.run(["dpkg-deb", "-f", str(deb)], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_SECONDS, check=True)
        text = done.stdout.decode()
        if len(text) > MAX_CONTROL_BYTES or not {"Package", "Version", "Architecture"} <= control_fields(text).keys():
            raise ValueError("its control paragraph is malformed")
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise ApplianceError("unavailable", f"{deb.name} is no proper package: {exc}", hint=f"delete {deb} and build again") from exc
    return text.strip() + "\n"


def control_fields(text: str) -> dict[str, str]:
    """Fields of a control paragraph; folded lines as they are."""
    return {name: value.strip() for name, value in _FIELD.findall(text)}


def read_copyright(deb: Path, name: str) -> str:
    """Licences from ``/usr/share/doc/<name>/copyright``; ``see <package>`` where that folder is a link to another package's; ``unknown``."""
    wanted = f"usr/share/doc/{name}"
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for count, member in enumerate(archive):
                path = member.name.removeprefix("./").rstrip("/")
                if path == wanted and member.issym():
                    return f"see {PurePosixPath(member.linkname).name}"
                if path == f"{wanted}/copyright" and member.isfile():
                    stream = archive.extractfile(member)
                    return licences_of(stream.read(MAX_COPYRIGHT_BYTES).decode(errors="replace")) if stream else UNKNOWN
                if count > MAX_MEMBERS:
                    break
    except (OSError, tarfile.TarError):
        return UNKNOWN
    finally:
        process.kill()
        process.communicate()
    return UNKNOWN


def licences_of(text: str) -> str:
    """The short names in a machine-readable copyright file (DEP-5), or the common licences that another one refers to; else ``unknown``."""
    pattern = _LICENCE if text.startswith("Format:") else _COMMON
    names = sorted({match.strip().rstrip(".") for match in pattern.findall(text)})
    more = [f"{len(names) - _MAX_LICENCES} more"] if len(names) > _MAX_LICENCES else []
    return " AND ".join([*names[:_MAX_LICENCES], *more]) or UNKNOWN

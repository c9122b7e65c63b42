"""Reads the licence of a wheel from its METADATA, within bounds: a wheel is foreign data until its bundle is signed."""

from __future__ import annotations

import re
import zipfile
from email.errors import MessageError
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path
from typing import Final

from appliance.bundle.build.contents import UNKNOWN
from appliance.kit.errors import ApplianceError

MAX_MEMBERS: Final = 100_000
MAX_METADATA_BYTES: Final = 4 * 1024 * 1024
_METADATA: Final = re.compile(r"[^/]+\.dist-info/METADATA")
_MAX_TEXT: Final = 120
_SPDX_WORD: Final = re.compile(r"[A-Za-z0-9.+-]+")


def read_wheel_licence(wheel: Path) -> tuple[str, bool]:
    """The licence and whether it is an SPDX expression.

    Raises:
        ApplianceError: ``unavailable`` when the file is no proper wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = archive.infolist()
            found = [entry for entry in entries if _METADATA.fullmatch(entry.filename)]
            if len(entries) > MAX_MEMBERS or len(found) != 1 or found[0].file_size > MAX_METADATA_BYTES:
                raise ValueError("expected one METADATA of a sane size")
            with archive.open(found[0]) as stream:
                data = stream.read(MAX_METADATA_BYTES + 1)
        if len(data) > MAX_METADATA_BYTES:
            raise ValueError("METADATA is larger than it says")
        return licence_of(BytesParser(policy=compat32).parsebytes(data, headersonly=True))
    except (OSError, ValueError, zipfile.BadZipFile, MessageError, NotImplementedError, RuntimeError) as exc:
        raise ApplianceError("unavailable", f"{wheel.name} is no proper wheel: {exc}", hint=f"delete {wheel} and build again") from exc


def licence_of(metadata: Message) -> tuple[str, bool]:
    """What the fields say, the most exact first: License-Expression, an SPDX-like License, classifiers, the first line of License."""
    expression = _line(metadata.get("License-Expression"))
    if expression:
        return expression, True
    text = _line(metadata.get("License"))
    classifiers = [_line(value) for value in metadata.get_all("Classifier", [])]
    names = sorted({value.rpartition(" :: ")[2] for value in classifiers if value.startswith("License :: ") and value != "License :: OSI Approved"})
    if names and not (text and _SPDX_WORD.fullmatch(text)):
        return "; ".join(names)[:_MAX_TEXT], False
    return (text or UNKNOWN), False


def _line(value: object) -> str:
    lines = str(value or "").strip().splitlines()
    return "".join(character for character in lines[0].strip()[:_MAX_TEXT] if character.isprintable()) if lines else ""

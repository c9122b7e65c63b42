"""Text of scanned pages by Tesseract, when it is installed. Optional: its absence is a warning, not an error.

Owns: finding the program and its languages, rendering at a bounded size, one bounded run per page.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2.raw as pdfium

from services.retrieval.parsing.normalise import clean_text
from services.retrieval.parsing.pdf_flow import join_lines

_OBJECTS_SEEN: Final = 200
_PICTURE_SHARE: Final = 0.5
_WANTED: Final = ("rus", "eng")
_DPI: Final = 250
_POINTS_PER_INCH: Final = 72
_MAX_PIXELS: Final = 20_000_000
_LIST_SECONDS: Final = 10
_MAX_TEXT: Final = 1_000_000
_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_SENTENCE_ENDS: Final = ".!?:;"
_NOISE: Final = re.compile(r"^[\W_]{1,3}$")


def is_mostly_picture(page: Any) -> bool:
    """Whether one picture covers half of a PDFium page: a scan, perhaps with a stamp of real text on it."""
    width, height = page.get_size()
    box = [ctypes.c_float() for _ in range(4)]
    for index in range(min(pdfium.FPDFPage_CountObjects(page), _OBJECTS_SEEN)):
        item = pdfium.FPDFPage_GetObject(page, index)
        if pdfium.FPDFPageObj_GetType(item) == pdfium.FPDF_PAGEOBJ_IMAGE and pdfium.FPDFPageObj_GetBounds(item, *box):
            left, bottom, right, top = (side.value for side in box)
            if (right - left) * (top - bottom) >= _PICTURE_SHARE * width * height:
                return True
    return False


@dataclass(frozen=True, slots=True)
class Recogniser:
    """An installed Tesseract and those of our languages that it has."""

    program: str
    languages: tuple[str, ...]

    @classmethod
    def find(cls) -> Recogniser | None:
        """The installed Tesseract with Russian or English; None when there is none."""
        program = shutil.which("tesseract")
        if program is None:
            return None
        try:
            listed = subprocess.run(  # fixed arguments
                [program, "--list-langs"], capture_output=True, timeout=_LIST_SECONDS, check=False, text=True
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        languages = tuple(name for name in _WANTED if name in listed.stdout.split())
        return cls(program, languages) if languages else None

    @property
    def missing(self) -> tuple[str, ...]:
        """Languages that we want and that are not installed."""
        return tuple(name for name in _WANTED if name not in self.languages)

    def read(self, page: Any, seconds: float) -> str | None:
        """Markdown paragraphs of a PDFium page; None when Tesseract failed or ran out of time."""
        command = [self.program, "stdin", "stdout", "-l", "+".join(self.languages)]
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        try:
            done = subprocess.run(  # fixed arguments, the picture goes to stdin
                command, input=_picture(page), capture_output=True, timeout=seconds, check=True, env=environment
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return _paragraphs(done.stdout[:_MAX_TEXT].decode("utf-8", errors="replace"))


def _picture(page: Any) -> bytes:
    """The page in grey at 250 dpi, or less where that would pass the pixel limit, as PNM."""
    width, height = page.get_size()
    scale = min(_DPI / _POINTS_PER_INCH, math.sqrt(_MAX_PIXELS / max(1.0, width * height)))
    image = page.render(scale=scale, grayscale=True).to_pil()
    out = io.BytesIO()
    image.convert("L").save(out, format="PPM")
    return out.getvalue()


def _paragraphs(text: str) -> str:
    """Recognised lines re-flowed; specks that became single signs are dropped."""
    blocks: list[list[tuple[str, bool]]] = []
    for block in _BLANK_LINES.split(clean_text(text)):
        lines = [line.strip() for line in block.split("\n")]
        kept = [(line, False) for line in lines if line and not _NOISE.match(line)]
        if kept and blocks and kept[0][0][0].islower() and blocks[-1][-1][0][-1] not in _SENTENCE_ENDS:
            blocks[-1] += kept  # wide line spacing looks like a gap between paragraphs
        elif kept:
            blocks.append(kept)
    return "\n\n".join(map(join_lines, blocks))

"""Find out how a text file is encoded: Unicode by its marks and shape, else the likeliest 8-bit code page.

Owns: the choice and the decoding. Short Russian texts are the hard case: ``Договор`` in cp1251 is valid
koi8-r, cp866 and latin-1 as well. Each candidate is decoded and scored by what Russian looks like:
letter frequencies, capitals only at the start of words, no words of mixed script, no line-drawing signs.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from services.retrieval.parsing import failures

_SAMPLE_BYTES: Final = 64 * 1024
_BOMS: Final = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE: Final = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_CODE_PAGES: Final = ("cp1251", "koi8-r", "cp866", "cp1252")
_WIDE_PLAUSIBLE: Final = 0.9
_BINARY_CONTROLS: Final = 0.02
_UTF8_DAMAGE: Final = 0.02

# Letters by frequency in Russian (O. Lyashevskaya, S. Sharov, 2009, order only), commonest first.
_RUSSIAN: Final = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"
_RANK_SCORE: Final = {char: 2.0 - 3.0 * rank / len(_RUSSIAN) for rank, char in enumerate(_RUSSIAN)}
_WORD: Final = re.compile(r"[^\W\d_]+")
_ODD_SIGNS: Final = re.compile("[\u2500-\u25ff\u2320\u2321\u0402-\u040f\u0452-\u045f\u0080-\u009f\xa4\xa6\xac\xb5-\xb7\u2219-\u2265]")
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class DecodedText:
    """Text, the name of its encoding, and whether some bytes had to be replaced."""

    text: str
    encoding: str
    damaged: bool = False


def decode_text(data: bytes, declared: str | None = None) -> DecodedText:
    """Decode a text file.

    Args:
        data: the whole file.
        declared: encoding named inside the file (HTML ``meta``), believed when it decodes.

    Raises:
        ApplianceError: ``unsupported_type`` when the bytes are no text in any known encoding.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(name, errors="replace")
            return _checked(DecodedText(text, name, damaged="\ufffd" in text))
    if declared is not None and (believed := _decode_strictly(data, declared)) is not None:
        return _checked(believed)
    return _checked(_decode_wide(data) or _decode_utf8(data) or _decode_code_page(data))


def _checked(decoded: DecodedText) -> DecodedText:
    """Refuse what decodes but is full of control characters."""
    sample = decoded.text[:_SAMPLE_BYTES]
    controls = len(_CONTROLS.findall(sample)) + sample.count("\ufffd")
    if sample and controls > max(8, len(sample) * _BINARY_CONTROLS):
        raise failures.unsupported("a binary file of unknown type")
    return decoded


def _decode_strictly(data: bytes, name: str) -> DecodedText | None:
    try:
        return DecodedText(data.decode(codecs.lookup(name).name), codecs.lookup(name).name)
    except (LookupError, UnicodeError, ValueError):
        return None


def _decode_wide(data: bytes) -> DecodedText | None:
    """UTF-16 or UTF-32 without a mark: the high bytes are 0 (Latin) or 4 (Cyrillic), which no other text has."""
    sample = data[:_SAMPLE_BYTES]
    if sample.count(0) + sample.count(4) < len(sample) // 3 or len(sample) < 2:
        return None
    best: DecodedText | None = None
    best_score = _WIDE_PLAUSIBLE
    for name in _WIDE:
        unit = 4 if "32" in name else 2
        text = sample[: len(sample) // unit * unit].decode(name, errors="replace")
        score = sum(map(_is_plain, text)) / max(1, len(text))
        if score > best_score:
            best_score = score
            best = DecodedText(data.decode(name, errors="replace"), name, damaged="\ufffd" in text)
    return best


def _is_plain(char: str) -> bool:
    """A letter, digit or sign of an everyday European text."""
    return char in "\t\n\r\f" or " " <= char <= "\u017f" or "\u0400" <= char <= "\u045f" or "\u2010" <= char <= "\u20bf"


def _decode_utf8(data: bytes) -> DecodedText | None:
    try:
        return DecodedText(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="replace")
    wide = sum(char > "\x7f" for char in text[:_SAMPLE_BYTES])
    broken = text[:_SAMPLE_BYTES].count("\ufffd")
    if wide > 0 and broken <= max(1, wide * _UTF8_DAMAGE) and wide - broken >= broken * 4:
        return DecodedText(text, "utf-8", damaged=True)
    return None


def _decode_code_page(data: bytes) -> DecodedText:
    sample = data[:_SAMPLE_BYTES]
    best = max(_CODE_PAGES, key=lambda name: _likeness(sample.decode(name, errors="replace")))
    text = data.decode(best, errors="replace")
    return DecodedText(text, best, damaged="\ufffd" in text)


def _likeness(text: str) -> float:
    """How much the non-ASCII part of ``text`` looks like Russian, or like Western Latin words."""
    score = -3.0 * len(_ODD_SIGNS.findall(text)) - 5.0 * text.count("\ufffd")
    for match in _WORD.finditer(text):
        word = match.group()
        if not word.isascii():
            score += _word_likeness(word)
    return score


def _word_likeness(word: str) -> float:
    cyrillic = sum(char.lower() in _RANK_SCORE for char in word)
    ascii_letters = sum(char.isascii() for char in word)
    foreign = len(word) - cyrillic - ascii_letters
    if cyrillic and (ascii_letters or foreign):
        return -2.0 * len(word)
    if not cyrillic:  # Latin with accents: mostly ASCII letters, and small letters after the first
        return 1.0 * ascii_letters - 1.5 * foreign if ascii_letters >= foreign else -1.0 * foreign
    score = sum(_RANK_SCORE[char.lower()] for char in word)
    rising = sum(a.islower() and b.isupper() for a, b in pairwise(word))
    shape = 0.5 * len(word) if word[1:].islower() or word.isupper() else 0.0
    return score + shape - 3.0 * rising - (0.3 * len(word) if word.isupper() and len(word) > 1 else 0.0)

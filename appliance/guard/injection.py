"""How much a text looks as if it wanted to take a model over: hits by rule, and one score.

Owns: looking behind disguises (invisible and look-alike characters, spaced-out letters, base64, hexadecimal, ROT13, reversed text, Unicode tags), the score,
the hook for a classifier. Rules are in ``injection_rules``. A heuristic is a net with holes: what it does not find is still held by delimiters, by rights, by
the screen of the answer; what it finds by mistake is only logged by default.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Protocol

from appliance.guard.hits import Hit
from appliance.guard.injection_rules import RULES
from appliance.guard.plain_text import PlainText

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{24,4096}={0,2}")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}[ :]?){20,2048}")
_SPACED: Final = re.compile(r"(?<!\w)(?:\w[ .\-*]{1,3}){7,200}\w(?!\w)")
_MOST_DECODED: Final = 16
_MOST_PER_RULE: Final = 16
_ROT13: Final = ("vtaber", "qvfertneq", "vafgehpgvba", "cebzcg")
_REVERSED: Final = ("snoitcurtsni", "erongi", "tpmorp", "иицкуртсни", "йуриронги")
_TAGS: Final = re.compile("[\U000e0020-\U000e007e]{6,}")
_INVISIBLE_RUN: Final = re.compile("[\u200b-\u200f\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff]{4,}|\u202e")
_DECODED_WEIGHT: Final = 0.95
_LONG_WORD: Final = 24
_DOTTED_WORD: Final = 15
_LETTER_WORDS: Final = b"\1" * 8
_BYTE_WORDS: Final = b"\2" * 20


class InjectionClassifier(Protocol):
    """A model that judges a text; set by the site. It is called in the way of a turn: it must be quick and must not raise."""

    def __call__(self, text: str, /) -> float:
        """Probability 0..1 that ``text`` tries to take the model over."""
        ...


def find_injection(text: PlainText) -> list[Hit]:
    """Every place that looks like an attempt, disguised ones included; spans of the source."""
    return [*_by_rules(text), *_disguised(text)]


def score(hits: list[Hit]) -> float:
    """Chance that one of the hits is meant, were they independent: ``1 − Π (1 − weight)``, each kind once."""
    by_kind: dict[str, float] = {}
    for hit in hits:
        if hit.policy == "injection":
            by_kind[hit.kind] = max(hit.weight, by_kind.get(hit.kind, 0.0))
    innocent = 1.0
    for weight in by_kind.values():
        innocent *= 1.0 - weight
    return 1.0 - innocent


def _by_rules(text: PlainText) -> Iterator[Hit]:
    lower = text.lower
    for rule in RULES:
        if any(gate in lower for gate in rule.gates):
            for found in islice(rule.pattern.finditer(lower), _MOST_PER_RULE):
                yield Hit(*text.original(*found.span()), "injection", rule.kind, rule.weight)


def _disguised(text: PlainText) -> Iterator[Hit]:
    """Hits in what the text says once a disguise is taken off; the span is that of the disguise."""
    for start, end, kind, inner in _uncovered(text):
        if any(hit.weight >= 0.5 for hit in _by_rules(PlainText(inner))):
            yield Hit(start, end, "injection", kind, _DECODED_WEIGHT)
    if text.invisible:
        for found in _TAGS.finditer(text.source):
            yield Hit(*found.span(), "injection", "hidden_text", 0.9)
        for found in _INVISIBLE_RUN.finditer(text.source):
            yield Hit(*found.span(), "injection", "hidden_text", 0.5)


def _uncovered(text: PlainText) -> Iterator[tuple[int, int, str, str]]:
    """Places that may be disguised text: span of the source, kind, what they say. Each look is made only where cheap signs call for it."""
    plain, lower = text.plain, text.lower
    words = plain.split()
    lengths = bytes([min(len(word), 255) for word in words])
    longest = max(lengths, default=0)
    if longest >= _LONG_WORD:
        yield from _each(text, _BASE64, _from_base64)
    if longest >= 2 * _LONG_WORD or _BYTE_WORDS in lengths:
        yield from _each(text, _HEX, _from_hex)
    if _LETTER_WORDS in lengths or (longest >= _DOTTED_WORD and any(_is_dotted(word) for word in words if len(word) >= _DOTTED_WORD)):
        yield from _each(text, _SPACED, _closed_up)
    if any(word in lower for word in _ROT13):
        yield 0, len(text.source), "encoded_payload", codecs.decode(plain, "rot13")
    if any(word in lower for word in _REVERSED):
        yield 0, len(text.source), "encoded_payload", plain[::-1]
    if text.invisible:
        for found in _TAGS.finditer(text.source):
            yield *found.span(), "encoded_payload", "".join(chr(ord(character) - 0xE0000) for character in found.group())


def _each(text: PlainText, form: re.Pattern[str], decode: Callable[[str], str]) -> Iterator[tuple[int, int, str, str]]:
    for found in islice(form.finditer(text.plain), _MOST_DECODED):
        if inner := decode(found.group()):
            yield *text.original(*found.span()), "encoded_payload", inner


def _is_dotted(word: str) -> bool:
    return sum(map(word.count, ".-*")) >= 7


def _from_base64(coded: str) -> str:
    if coded.isalpha() and (coded.islower() or coded.isupper()):
        return ""  # a long word
    whole = coded.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return _readable(base64.b64decode(whole + "=" * (-len(whole) % 4)))
    except (binascii.Error, ValueError):
        return ""


def _from_hex(coded: str) -> str:
    try:
        return _readable(bytes.fromhex(coded.replace(":", " ").strip()))
    except ValueError:
        return ""


def _readable(decoded: bytes) -> str:
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if sum(character.isprintable() or character.isspace() for character in text) > 0.9 * len(text) else ""


def _closed_up(spaced: str) -> str:
    """``i g n o r e`` as ``ignore``; words that lost their borders are put apart before the words that rules look for."""
    letters = "".join(character for character in spaced if character.isalnum())
    return _BORDERS.sub(r" \1 ", letters.lower())


_BORDERS: Final = re.compile(
    r"(ignore|disregard|forget|previous|prior|above|all|your|system|instructions?|prompt|rules|reveal|show|игнорируй|забудь|все|всё|предыдущие|инструкции|указания|правила|системный|промпт|покажи)"
)

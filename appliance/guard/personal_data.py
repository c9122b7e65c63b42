"""Personal data in text: numbers of Russian papers and banks, telephone numbers, mail addresses.

Owns: which groups of digits belong together, what kind of number they are (form, check digits, words before them). Check digits are in ``checksums``.
A number without check digits counts only beside a word that names it; one with a weak check (an INN of ten digits passes one time in ten) as well.
Linear: every group of digits is the start of at most one window of at most 20 digits.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.guard import checksums
from appliance.guard.hits import Hit
from appliance.guard.plain_text import PlainText

_GROUP: Final = re.compile(r"[0-9]+")
_LONGEST_GAP: Final = 9
_GAP: Final = re.compile(r"[ \t()./№N–—-]{1,4}|,?[ \t]?(?:номер|number|no\.?):?[ \t]?", re.IGNORECASE)
_MOST_DIGITS: Final = 20
_LEAST_DIGITS: Final = 10
_TINY: Final = 2
_MOST_TINY: Final = 300  # groups of one or two digits that are tried as the begin of a number: a table of digits must not cost seconds
_BEFORE: Final = 48
_NEAR: Final = 12
_INN: Final = re.compile(r"инн\b|\binn\b|\btin\b")
_SNILS: Final = re.compile(r"снилс|snils|страхов")
_PASSPORT: Final = re.compile(r"паспорт|сери[яийюе]|passport")
_PHONE: Final = re.compile(r"тел|моб|факс|звон|phone|mobile|\bcall\b|whatsapp|ватсап")
_OGRN: Final = re.compile(r"огрн|ogrn")
_ACCOUNT: Final = re.compile(r"сч[её]т|р/с|к/с|р\.с\.|\baccount\b")
_CARD_SHAPES: Final = frozenset({(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 4, 2), (4, 4, 4, 4, 1), (8, 8), (6, 10), (4, 4, 8), (4, 12), (8, 10), (8, 11)})  # fmt: skip
_PHONE_SHAPES: Final = frozenset({(3, 3, 2, 2), (3, 3, 4), (3, 7), (4, 6), (4, 2, 2, 2), (5, 5), (5, 1, 2, 2), (3, 2, 2, 3), (10,)})
_PASSPORT_SHAPES: Final = frozenset({(4, 6), (2, 2, 6), (10,), (2, 8)})
_LOCAL: Final = re.compile(r"[\w.+%'-]{1,64}")
_DOMAIN: Final = re.compile(r"(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}")
_LOCAL_BACK: Final = re.compile(r"[\w.+%'-]{1,64}\Z")


def find_personal_data(text: PlainText) -> list[Hit]:
    """Every piece of personal data; spans of the source."""
    return [*_numbers(text), *_addresses(text)]


def _addresses(text: PlainText) -> list[Hit]:
    hits: list[Hit] = []
    plain = text.plain
    at = plain.find("@")
    while at > 0:
        name = _LOCAL_BACK.search(plain, max(0, at - 64), at)
        domain = _DOMAIN.match(plain, at + 1)
        if name is not None and domain is not None:
            hits.append(Hit(*text.original(name.start(), domain.end()), "pii", "email"))
        at = plain.find("@", at + 1)
    return hits


def _numbers(text: PlainText) -> list[Hit]:
    plain = text.plain
    groups = [found.span() for found in _GROUP.finditer(plain)]
    hits: list[Hit] = []
    at, last, tiny = 0, len(groups), 0
    while at < last:
        start, end = groups[at]
        linked = at + 1 < last and groups[at + 1][0] - end <= _LONGEST_GAP
        if end - start < _LEAST_DIGITS and not linked:
            at += 1
            continue
        if end - start <= _TINY:
            tiny += 1
            if tiny > _MOST_TINY:
                at += 1
                continue
        found = _longest(text, groups, at)
        if found is None:
            at += 1
        else:
            after, kind = found
            first = start - 1 if start and plain[start - 1] == "+" else start
            hits.append(Hit(*text.original(first, groups[after - 1][1]), "pii", kind))
            at = after
    return hits


def _longest(text: PlainText, groups: list[tuple[int, int]], at: int) -> tuple[int, str] | None:
    """The longest number that begins with group ``at``: the group after it, and its kind."""
    plain = text.plain
    start, end = groups[at]
    if start and (plain[start - 1].isalpha() or plain[start - 1] == "_"):
        return None
    best: tuple[int, str] | None = None
    digits, shape = "", []
    for after in range(at, min(at + _MOST_DIGITS, len(groups))):
        begin, stop = groups[after]
        if after > at and (begin - end > _LONGEST_GAP or _GAP.fullmatch(plain, end, begin) is None):
            break
        end = stop
        digits += plain[begin:stop]
        if len(digits) > _MOST_DIGITS:
            break
        shape.append(stop - begin)
        if len(digits) >= _LEAST_DIGITS and not (end < len(plain) and (plain[end].isalpha() or plain[end] == "_")):
            kind = _kind(text, start, digits, tuple(shape))
            if kind:
                best = after + 1, kind
    return best


def _kind(text: PlainText, start: int, digits: str, shape: tuple[int, ...]) -> str:
    before = text.lower[max(0, start - _BEFORE) : start]
    match len(digits):
        case 10:
            return _of_ten(before, digits, shape)
        case 11:
            if (shape in {(3, 3, 3, 2), (9, 2)} or _SNILS.search(before)) and checksums.snils(digits):
                return "snils"
            return "phone" if _is_phone(before, digits, shape) else ""
        case 12:
            if (len(shape) == 1 or _INN.search(before)) and checksums.inn(digits):
                return "inn"
        case 13 | 15 if _OGRN.search(before) and checksums.ogrn(digits):
            return "ogrn"
        case 20:
            return "bank_account" if digits[0] in "34" and _ACCOUNT.search(before) else ""
    if before.endswith("+") and digits[0] != "7" and 10 <= len(digits) <= 15:
        return "phone"
    if 13 <= len(digits) <= 19 and (len(shape) == 1 or shape in _CARD_SHAPES or max(shape) <= 2) and checksums.card(digits):
        return "card"
    return ""


def _of_ten(before: str, digits: str, shape: tuple[int, ...]) -> str:
    named = _INN.search(before) is not None and checksums.inn(digits)
    if named and _INN.search(before[-_NEAR:]):
        return "inn"
    if shape in _PASSPORT_SHAPES and _PASSPORT.search(before):
        return "passport_ru"
    if named:
        return "inn"
    called = before.endswith("(") or _PHONE.search(before[-24:]) is not None
    return "phone" if called and digits[0] in "3489" and shape in _PHONE_SHAPES else ""


def _is_phone(before: str, digits: str, shape: tuple[int, ...]) -> bool:
    """Eleven digits of a Russian number: ``+7``, ``8`` or ``7``, an area code that exists, groups as people write them."""
    if digits[0] not in "78" or digits[1] not in "34789":
        return False
    if before.endswith("+"):
        return digits[0] == "7"
    if len(shape) == 1:
        return digits[1] == "9" or (digits[0] == "8" and digits[1] in "348") or _PHONE.search(before) is not None
    return shape[0] in {1, 4} and all(length <= 7 or length == 10 for length in shape) and (digits[0] == "8" or digits[1] == "9" or len(shape) > 3)

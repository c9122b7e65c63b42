"""Check digits of Russian numbers and bank cards. Every function takes digits only, of the right length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Order of the Federal Tax Service ММВ-7-6/435@, annex: weights of the check digits of an INN
_INN_10: Final = (2, 4, 10, 3, 5, 9, 4, 6, 8)
_INN_11: Final = (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
_INN_12: Final = (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_FIRST_CHECKED_SNILS: Final = 1_001_998  # older numbers have no check digits


def inn(digits: str) -> bool:
    """Tax number of a company (10) or a person (12)."""
    if len(set(digits)) == 1:
        return False
    if len(digits) == 10:
        return _weighted(digits, _INN_10) == int(digits[9])
    return len(digits) == 12 and _weighted(digits, _INN_11) == int(digits[10]) and _weighted(digits, _INN_12) == int(digits[11])


def snils(digits: str) -> bool:
    """Insurance number of a person: nine digits and two check digits."""
    if len(digits) != 11 or int(digits[:9]) <= _FIRST_CHECKED_SNILS:
        return False
    total = sum(int(digit) * (9 - place) for place, digit in enumerate(digits[:9]))
    return total % 101 % 100 == int(digits[9:])


def ogrn(digits: str) -> bool:
    """State registration number of a company (13) or an entrepreneur (15)."""
    return len(digits) in {13, 15} and int(digits[:-1]) % (len(digits) - 2) % 10 == int(digits[-1])


def card(digits: str) -> bool:
    """Luhn (ISO/IEC 7812-1) and a range of issuers that exists for this length."""
    return _issued(digits) and len(set(digits)) > 1 and luhn(digits)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def _issued(digits: str) -> bool:
    first = int(digits[:4])
    match len(digits):
        case 15:
            return first // 100 in {34, 37}
        case 14:
            return first // 100 in {36, 38}
        case 13:
            return digits[0] == "4"
        case 16:
            return digits[0] in "45" or 2200 <= first <= 2204 or 2221 <= first <= 2720 or digits[0] == "6" or 3528 <= first <= 3589
        case 17 | 18 | 19:
            return digits[0] in "456" or 2200 <= first <= 2204
    return False


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(weight * int(digit) for weight, digit in zip(weights, digits, strict=False)) % 11 % 10

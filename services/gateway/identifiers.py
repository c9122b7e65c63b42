"""Identifiers that must be unique but not secret: a random prefix per process and a counter. A system call less per request than random ones."""

from __future__ import annotations

import itertools
import secrets
from typing import Final

_prefix: Final = secrets.token_hex(10)
_numbers: Final = itertools.count(1)


def next_identifier() -> str:
    """32 hexadecimal characters or a few more."""
    return f"{_prefix}{next(_numbers):012x}"

"""Secrets in text: private keys, tokens of well-known forms, passwords that a word names, credentials inside addresses.

Owns: the forms. A form is looked for only where its fixed beginning stands in the text, so that ordinary text costs a few substring searches.
``PREFIXES`` are those beginnings; the screen of a streaming answer waits for the end of a word that begins with one.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.guard.hits import Hit
from appliance.guard.plain_text import PlainText

_WORD: Final = r"(?<![A-Za-z0-9_-])"
_FORMS: Final[tuple[tuple[str, str, re.Pattern[str]], ...]] = tuple(
    (prefix, kind, re.compile(_WORD + form))
    for prefix, kind, form in (
        ("eyJ", "jwt", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,3}"),
        ("sk-", "api_key", r"sk-[A-Za-z0-9_.-]{16,}"),
        ("rt-", "api_key", r"rt-[A-Za-z0-9_.-]{16,}"),
        ("AKIA", "cloud_key", r"AKIA[0-9A-Z]{16}(?![0-9A-Za-z])"),
        ("ASIA", "cloud_key", r"ASIA[0-9A-Z]{16}(?![0-9A-Za-z])"),
        ("AIza", "cloud_key", r"AIza[0-9A-Za-z_-]{35}"),
        ("AQVN", "cloud_key", r"AQVN[0-9A-Za-z_-]{30,}"),
        ("y0_", "cloud_key", r"y0_[0-9A-Za-z_-]{30,}"),
        ("ghp_", "api_key", r"ghp_[0-9A-Za-z]{30,}"),
        ("gho_", "api_key", r"gho_[0-9A-Za-z]{30,}"),
        ("github_pat_", "api_key", r"github_pat_[0-9A-Za-z_]{30,}"),
        ("glpat-", "api_key", r"glpat-[0-9A-Za-z_-]{18,}"),
        ("xox", "api_key", r"xox[abeoprs]-[0-9A-Za-z-]{16,}"),
        ("hf_", "api_key", r"hf_[0-9A-Za-z]{30,}"),
        ("npm_", "api_key", r"npm_[0-9A-Za-z]{30,}"),
    )
)
PREFIXES: Final = tuple(prefix for prefix, _, _ in _FORMS)
PEM_BEGIN: Final = "-----BEGIN"
LONGEST_PEM: Final = 16_384
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s\\:,.()]|-(?!----))*+(?:-----END [A-Z0-9 ]{0,40}-----)?"
)
_NAMES: Final = (
    "passw", "пароль", "пароля", "secret", "token", "pwd", "apikey", "api_key", "api-key", "access_key", "секретный ключ", "passphrase", "токен",
)  # fmt: skip
NAMED: Final = re.compile(
    r"(?:pass(?:word|wd|phrase)|пароль|пароля|pwd|(?:client_|api_|access_|auth_)?(?:secret|token)(?:_?key)?|api[_-]?key|access_key|секретный ключ|токен)"
    r"[\"'`*]{0,3}(?:[ \t]{1,2}(?:is|это|is now|от [\w.-]{1,30}))?[ \t]{0,3}(?:[:=]{1,2}|=>|[—–-]|(?<=is)|(?<=это))[ \t]{0,3}[\"'`«*]{0,3}"
)
_VALUE: Final = re.compile(r"[^\s\"'`»<>]{4,128}")
_TRAILING: Final = ".,;:)»*"
_ADDRESS: Final = re.compile(r"://([^\s/:@]{0,64}):([^\s/@]{1,128})@(?=[\w\[])")
_PLACEHOLDER: Final = re.compile(r"[*•█x.…_-]+|\$?\{.*|<.*|%.*%|(?:none|null|true|false|required|optional|string|str)\b.*", re.IGNORECASE)


def find_secrets(text: PlainText) -> list[Hit]:
    """Every secret; spans of the source."""
    plain, lower = text.plain, text.lower
    hits = [
        Hit(*text.original(*found.span()), "secret", kind)
        for prefix, kind, form in _FORMS
        if prefix in plain
        for found in form.finditer(plain)
        if _has_variety(found.group(), prefix)
    ]
    if PEM_BEGIN in plain:
        hits += [Hit(*text.original(*found.span()), "secret", "private_key") for found in _PEM.finditer(plain)]
    if "://" in plain:
        hits += [Hit(*text.original(*found.span(2)), "secret", "credentials_in_address") for found in _ADDRESS.finditer(plain)]
    if any(name in lower for name in _NAMES):
        hits += _named(text)
    return hits


def _named(text: PlainText) -> list[Hit]:
    hits: list[Hit] = []
    for name in NAMED.finditer(text.lower):
        value = _VALUE.match(text.plain, name.end())
        if value is None:
            continue
        word = value.group().rstrip(_TRAILING)
        if _is_password(word, russian=not name.group().isascii()):
            hits.append(Hit(*text.original(value.start(), value.start() + len(word)), "secret", "password"))
    return hits


def _is_password(word: str, *, russian: bool) -> bool:
    """A word after "password:" that does not read as ordinary text: a digit, a sign, capitals inside, or Latin letters in Russian text."""
    if len(word) < 4 or _PLACEHOLDER.fullmatch(word):
        return False
    if any(character.isdigit() or character in "!@#$%^&*_+=~" for character in word):
        return True
    inner = word[1:]
    return (inner != inner.lower() and inner != inner.upper()) or (russian and word.isascii() and word.isalpha())


def _has_variety(found: str, prefix: str) -> bool:
    """Not ``sk-xxxxxxxxxxxxxxxxxxxx``, the key of a manual, nor a hyphenated word."""
    rest = found[len(prefix) :]
    return len(set(rest)) > 5 and (any(map(str.isdigit, rest)) or rest.lower() != rest)

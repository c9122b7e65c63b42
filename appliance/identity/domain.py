"""Users, spaces and members as the rest of the house sees them, and the rules for their names. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError

_SPACE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_USER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_TITLE_CHARACTERS: Final = 200
_SUBJECT_PREFIX: Final = "user:"


@dataclass(frozen=True, slots=True)
class User:
    """Who may log in; ``role`` is a global role (``roles``), ``created_at`` seconds since the epoch."""

    name: str
    role: str
    disabled: bool
    requests_per_minute: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Space:
    """A space and what the one who asked may do in it."""

    name: str
    title: str
    role: SpaceRole


@dataclass(frozen=True, slots=True)
class Member:
    """Who may do what in a space; ``subject`` is ``user:<name>``."""

    subject: str
    role: SpaceRole


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login gives; ``expires_in`` is seconds until the access token ends."""

    access_token: str
    refresh_token: str
    expires_in: int


def space_name(text: str) -> str:
    """``text`` when it is a space name; raises ApplianceError ``invalid_request`` otherwise."""
    if _SPACE_NAME.fullmatch(text) is None:
        raise _invalid("a space name has 1 to 63 of a-z 0-9 . _ - and begins with a letter or digit")
    return text


def user_name(text: str) -> str:
    """``text`` when it is a user name; raises ApplianceError ``invalid_request`` otherwise."""
    if _USER_NAME.fullmatch(text) is None:
        raise _invalid("a user name has 1 to 63 of a-z 0-9 . _ @ - and begins with a letter or digit")
    return text


def member_name(subject: str) -> str:
    """User name in ``user:anna`` or ``anna``."""
    return user_name(subject.removeprefix(_SUBJECT_PREFIX))


def title(text: str) -> str:
    """A title fit for one line of a list; raises ApplianceError ``invalid_request`` otherwise."""
    if len(text) > _TITLE_CHARACTERS or not text.isprintable():
        raise _invalid(f"a title is one line of at most {_TITLE_CHARACTERS} characters")
    return text


def space_role(text: str) -> SpaceRole:
    """Role by name; raises ApplianceError ``invalid_request`` otherwise."""
    try:
        return SpaceRole.parse(text)
    except KeyError as error:
        raise _invalid("a space role is reader, editor or owner") from error


def requests_per_minute(number: int) -> int:
    """A rate limit; raises ApplianceError ``invalid_request`` otherwise."""
    if not 1 <= number <= 100_000_000:
        raise _invalid("requests per minute is a number from 1 to 100000000")
    return number


def _invalid(message: str) -> ApplianceError:
    return ApplianceError("invalid_request", message, hint="correct the value and try again")

"""Subjects of the event log: how a space, a task or an executor is written as one. Owns the encoding and its reverse.

A subject is made of tokens between dots. Space names may hold dots: they are written ``+``, which no space name and no id has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from appliance.kit.errors import ApplianceError

TASKS: Final = "task"
EXECUTORS: Final = "executor"
SPACES: Final = "space"
_FORBIDDEN: Final = frozenset(" \t\r\n\0*>+")
_LONGEST: Final = 200


@lru_cache(maxsize=16_384)  # a task's subject is built for each of its entries
def subject_token(text: str) -> str:
    """``text`` as one token.

    Raises:
        ApplianceError: ``invalid_request`` for an empty text, a long one or one with characters that no name has.
    """
    if not text or len(text) > _LONGEST or not _FORBIDDEN.isdisjoint(text) or not text.isprintable():
        raise ApplianceError("invalid_request", f"{text[:60]!r} cannot be part of a name", hint="letters, digits, '-', '_' and '.' can")
    return text.replace(".", "+")


def token_text(token: str) -> str:
    """The reverse of :func:`subject_token`."""
    return token.replace("+", ".")


def task_subject(space: str, task_id: str) -> str:
    """Where a task's events are."""
    return f"{TASKS}.{subject_token(space)}.{subject_token(task_id)}"


def executor_subject(executor: str) -> str:
    """Where an executor's registrations are."""
    return f"{EXECUTORS}.{subject_token(executor)}"


def space_subject(space: str) -> str:
    """Where what concerns a whole space is."""
    return f"{SPACES}.{subject_token(space)}"


def subject_names(subject: str) -> tuple[str, ...]:
    """The kind, then the names: ``task.a+b.t_1`` → ``("task", "a.b", "t_1")``."""
    kind, *tokens = subject.split(".")
    return kind, *map(token_text, tokens)

"""Registered functions, version 1: the decorator and what a function may ask of the box. A function's author imports this module and nothing else.

An ``async`` function shares a worker process with others: it must not block its event loop. A plain function has a process to itself while it runs.
Both run in a sandbox: no network, no child processes, nothing written, no files of the box.

Owns: the registry of this process. Imports are the standard library's only: a worker's start depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class RefusedError(Exception):
    """The function says no: trying again with the same input is useless. The task fails at once with this message.

    Args:
        message: one sentence for the owner of the task.
        code: a code of the error table, ``task_invalid`` when the input is at fault.
    """

    def __init__(self, message: str, *, code: str = "task_invalid") -> None:
        super().__init__(message)
        self.code = code


class LaterError(Exception):
    """The function gives the task back unfinished: it goes on at its newest checkpoint, in another attempt."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A function under its name. ``timeout_seconds`` None = the box's default."""

    name: str
    call: Callable[..., Any]
    timeout_seconds: float | None = None
    input_schema: Mapping[str, Any] = field(default_factory=dict)


REGISTERED: Final[dict[str, Registered]] = {}


def function(name: str, *, timeout_seconds: float | None = None, input_schema: Mapping[str, Any] | None = None) -> Callable[[_Function], _Function]:
    """Register ``call(ctx, input)`` as the task type ``name`` (``area.verb``, lower case).

    Args:
        name: the task type; unique on the box.
        timeout_seconds: longest time of one attempt, without the time that it waits for a person.
        input_schema: JSON Schema of the input, shown in the registry.

    Raises:
        ValueError: the name is not of that form, or taken by another function.
    """

    def register(call: _Function) -> _Function:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a function's name: lower case words joined by dots")
        taken = REGISTERED.get(name)
        if taken is not None and taken.call is not call:
            raise ValueError(f"{name!r} is taken by {taken.call.__module__}.{taken.call.__qualname__}")
        REGISTERED[name] = Registered(name, call, timeout_seconds, dict(input_schema or {}))
        return call

    return register


class FunctionContext(Protocol):
    """What an ``async`` function gets as its first argument. A plain function gets the same with methods that return values instead of awaitables.

    Every value that goes through it is JSON.
    """

    @property
    def task_id(self) -> str:
        """Of the task."""
        ...

    @property
    def attempt(self) -> int:
        """1 for the first."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of the task."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of the task: give it to systems that can tell a repeated request."""
        ...

    async def step(self, name: str, what: Callable[..., Any] | Awaitable[Any], *arguments: Any) -> Any:
        """Do ``what`` once: a later attempt gets the result of this one and does not do it again.

        ``what`` is called (and awaited when it returns an awaitable) after all earlier steps are durable. Names are unique in a run: number those of a loop.
        Returns the result as JSON has it (a tuple comes back as a list).
        """
        ...

    def progress(self, fraction: float, note: str = "") -> None:
        """Say how far it is, 0–1. Cheap: only the newest is sent, at most ten a second."""
        ...

    async def checkpoint(self, state: Any) -> str:
        """Keep ``state`` for later attempts; its id."""
        ...

    async def restore(self) -> Any:
        """State of the newest checkpoint, None when there is none."""
        ...

    async def effect(
        self, action: str, arguments: Mapping[str, Any], run: Callable[[Mapping[str, Any]], Any], context: Mapping[str, Any] | None = None
    ) -> Any:
        """Do something in the outside world once, if a person or a policy allows it.

        Args:
            action: what approvals and policies call it.
            arguments: what is approved; a change needs a new approval.
            run: called with the approved arguments, which a person may have changed; what it returns is the outcome.
            context: what the person should know.

        Returns:
            The outcome; that of the earlier attempt when it was done already.

        A refusal or an unknown outcome of an earlier attempt ends the attempt.
        """
        ...

"""Validators, version 1: what a JSON Schema cannot say about a value, asked of a service that may run in an environment of its own (validators.proto)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class ValueCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One value for one validator.

    Attributes:
        pointer: JSON pointer of the value in the data; comes back with a failure.
        validator: its name.
        arguments: a JSON object with what the validator is told.
        value: as JSON.
    """

    pointer: str
    validator: str
    arguments: str = "{}"
    value: str = "null"


class ValueFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with the value at ``pointer``, in words that a model can act on."""

    pointer: str
    validator: str
    reason: str


class ValidatorCard(msgspec.Struct, frozen=True, kw_only=True):
    """A validator that may be asked. ``source``: ``own`` or ``guardrails-ai``; ``about``: what it checks and its arguments."""

    name: str
    source: str
    about: str = ""


class Validators(Protocol):
    """Several validators behind one door. ``caller`` names the service that asks; it is what the bearer of a call stands for."""

    async def check(self, caller: str, checks: Sequence[ValueCheck]) -> Sequence[ValueFailure]:
        """Failures; () = everything holds.

        Raises:
            ApplianceError: ``invalid_request`` for an unknown validator or arguments that it does not take, ``too_large``, ``overloaded``, ``unavailable``;
                a validator that itself breaks is a failure of its value, never a pass.
        """
        ...

    async def cards(self, caller: str) -> Sequence[ValidatorCard]:
        """What may be asked for, by name."""
        ...

"""Implements ``Validators``: bounded, in threads. A validator that breaks is a failure of its value: nothing passes because something went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from appliance.contracts.validators.v1.api import ValidatorCard, ValueCheck, ValueFailure
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.validators.ports import Validator

MOST_CHECKS: Final = 1_000
MOST_BYTES: Final = 2_000_000
MOST_WAITING: Final = 16
_REASON: Final = 300
_log = get_logger(__name__)


class ValidatorService:
    """Args: validators: any number, names differ; threads: side by side. A call whose validator hangs keeps one; when all are kept, calls are refused."""

    def __init__(self, validators: Iterable[Validator], threads: int = 4) -> None:
        self._validators = {validator.card.name: validator for validator in validators}
        self._pool = ThreadPoolExecutor(threads, "validators")
        self._room = threads + MOST_WAITING

    async def check(self, caller: str, checks: Sequence[ValueCheck]) -> Sequence[ValueFailure]:
        """See the contract."""
        del caller
        if len(checks) > MOST_CHECKS or sum(len(one.value) + len(one.arguments) for one in checks) > MOST_BYTES:
            raise ApplianceError("too_large", "too much to check at once", hint=f"at most {MOST_CHECKS:,} values and {MOST_BYTES:,} characters together")
        unknown = sorted({one.validator for one in checks} - self._validators.keys())
        if unknown:
            raise ApplianceError("invalid_request", f"no validator {unknown[0][:100]!r}", hint=f"there are {', '.join(sorted(self._validators))}")
        if self._room <= 0:
            raise ApplianceError("overloaded", "all validators are busy", hint="try again; a validator that never ends keeps its thread until a restart")
        self._room -= 1
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._look, tuple(checks))
        work.add_done_callback(self._done)
        return await asyncio.shield(work)

    async def cards(self, caller: str) -> Sequence[ValidatorCard]:
        """See the contract."""
        del caller
        return [self._validators[name].card for name in sorted(self._validators)]

    def close(self) -> None:
        """Wait for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._room += 1
        if not work.cancelled():
            work.exception()  # seen, also when the caller has gone

    def _look(self, checks: Sequence[ValueCheck]) -> list[ValueFailure]:
        looked = ((one, self._problem(one)) for one in checks)
        return [ValueFailure(pointer=one.pointer, validator=one.validator, reason=reason[:_REASON]) for one, reason in looked if reason]

    def _problem(self, one: ValueCheck) -> str:
        try:
            value, arguments = json.loads(one.value), json.loads(one.arguments)
            if not isinstance(arguments, dict):
                raise TypeError("arguments are an object")
        except (ValueError, TypeError, RecursionError) as exc:
            raise ApplianceError("invalid_request", f"the check at {one.pointer} is not JSON", hint="send value and arguments as JSON") from exc
        try:
            return self._validators[one.validator].problem(value, arguments)
        except (ValueError, TypeError) as exc:
            raise ApplianceError("invalid_request", f"validator {one.validator!r}: {exc}"[:_REASON], hint="see what it takes: its card") from exc
        except Exception as exc:  # foreign code
            _log.warning("validator_broke", validator=one.validator, error=type(exc).__name__)
            return f"the validator {one.validator} broke: {type(exc).__name__}"

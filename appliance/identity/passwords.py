"""Password hashes: Argon2id with the second recommended parameters of RFC 9106 section 4 (t=3, p=4, m=64 MiB).

One hash takes 64 MiB for about a tenth of a second, so at most ``WORKERS`` run at once (bounded memory: 128 MiB) and at most
``WAITING`` wait; more are refused rather than queued without end. An unknown user costs the same time as a known one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.kit.errors import ApplianceError

_Result = TypeVar("_Result")

MEMORY_KIB: Final = 64 * 1024
TIME_COST: Final = 3
LANES: Final = 4
WORKERS: Final = 2
WAITING: Final = 32
SHORTEST_CHARACTERS: Final = 8
LONGEST_CHARACTERS: Final = 256

NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$YXBwbGlhbmNlLW5vYm9keQ$cP1tYzm0kXJTnqEvaa3i3v6b1lVAmlQ0rJ0C3BHiKeM"
"""A hash that no password is known for; verified instead when the user does not exist."""


class Passwords:
    """Hashes and verifies in threads of its own.

    Args:
        hasher: parameters; tests pass cheap ones.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID)
        self._threads = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="argon2")
        self._running = 0

    async def hash(self, password: str) -> str:
        """Encoded hash with its parameters and a random salt.

        Raises:
            ApplianceError: ``invalid_request`` for a password outside 8..256 characters; ``overloaded``.
        """
        if not SHORTEST_CHARACTERS <= len(password) <= LONGEST_CHARACTERS:
            raise ApplianceError(
                "invalid_request",
                f"a password has {SHORTEST_CHARACTERS} to {LONGEST_CHARACTERS} characters",
                hint="choose a longer one; a sentence of five words is good",
            )
        return await self._run(self._hash, password)

    async def verify(self, encoded: str | None, password: str) -> bool:
        """Whether ``password`` is the one behind ``encoded``; None (unknown user) takes as long and is false.

        Raises:
            ApplianceError: ``overloaded`` when too many logins wait.
        """
        matches = await self._run(self._matches, encoded or NOBODY, password[:LONGEST_CHARACTERS])
        return matches and encoded is not None

    def is_outdated(self, encoded: str) -> bool:
        """Whether ``encoded`` was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(encoded)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[..., _Result], *arguments: str) -> _Result:
        if self._running >= WORKERS + WAITING:
            raise ApplianceError("overloaded", "too many logins at once", hint="try again in a few seconds")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        finally:
            self._running -= 1

    def _hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def _matches(self, encoded: str, password: str) -> bool:
        try:
            return self._hasher.verify(encoded, password)
        except (VerificationError, InvalidHashError):
            return False

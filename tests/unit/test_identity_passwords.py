"""Password hashes: the parameters, the memory they may take, and no oracle for unknown users."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from argon2 import PasswordHasher, extract_parameters

from appliance.identity.passwords import LANES, MEMORY_KIB, NOBODY, TIME_COST, WAITING, WORKERS, Passwords
from appliance.kit.errors import ApplianceError
from tests.unit.identity_bed import cheap_passwords


async def test_the_parameters_are_those_of_rfc_9106_and_the_decoy_has_the_same() -> None:
    passwords = Passwords()
    encoded = await passwords.hash("correct horse")
    mine, decoy = extract_parameters(encoded), extract_parameters(NOBODY)
    assert (mine.memory_cost, mine.time_cost, mine.parallelism) == (MEMORY_KIB, TIME_COST, LANES) == (65536, 3, 4)
    assert mine == decoy
    assert await passwords.verify(encoded, "correct horse")
    assert not await passwords.verify(encoded, "correct hors")
    passwords.close()


async def test_an_unknown_user_costs_as_much_as_a_known_one() -> None:
    passwords = Passwords()
    encoded = await passwords.hash("correct horse")

    async def fastest(hash_or_none: str | None) -> float:
        times = []
        for _ in range(4):
            started = time.perf_counter()
            assert not await passwords.verify(hash_or_none, "guess")
            times.append(time.perf_counter() - started)
        return min(times)

    known, unknown = await fastest(encoded), await fastest(None)
    passwords.close()
    assert 0.5 < known / unknown < 2


class CountingHasher(PasswordHasher):
    running = most = 0
    lock = threading.Lock()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # noqa: A002 - the name in argon2
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.005)
        with self.lock:
            self.running -= 1
        return False


async def test_parallel_logins_never_hash_more_than_two_at_once_and_a_crowd_is_refused() -> None:
    hasher = CountingHasher()
    passwords = Passwords(hasher)
    results = await asyncio.gather(*(passwords.verify(None, "x") for _ in range(100)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, ApplianceError)]
    passwords.close()
    assert hasher.most <= WORKERS
    assert len(refused) == 100 - WORKERS - WAITING
    assert {error.code for error in refused} == {"overloaded"}


async def test_old_hashes_are_noticed() -> None:
    cheap = cheap_passwords()
    strong = Passwords()
    assert strong.is_outdated(await cheap.hash("correct horse"))
    cheap.close()
    strong.close()


@pytest.mark.parametrize("password", ["", "short", "x" * 257])
async def test_passwords_of_unfit_length_are_refused(password: str) -> None:
    passwords = cheap_passwords()
    with pytest.raises(ApplianceError):
        await passwords.hash(password)
    passwords.close()

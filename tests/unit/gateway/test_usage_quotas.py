"""Quotas refuse before a turn is spent, warn before that, begin anew with the day and the month, and know after a restart what was spent."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance.contracts.llm.v1.api import Usage
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from appliance.kit.sql import open_database
from services.gateway.domain import Prices
from services.gateway.quotas import Quotas, read_quotas
from services.gateway.sqlalchemy_usage import SqlAlchemyUsage
from services.gateway.tables import SCHEMA
from services.gateway.usage import Billed, UsageAccounts

ANNA = Principal("user:anna", "user", frozenset({"member"}), spaces={"legal": SpaceRole.READER})
KEY = Principal("key:k1", "key", frozenset({"member"}), spaces={"legal": SpaceRole.READER}, behind="user:anna")
BORIS = Principal("user:boris", "user", frozenset({"admin"}))
NOON = datetime(2026, 1, 30, 12, tzinfo=UTC).timestamp()
HOUR, DAY = 3600, 86_400


def _quotas(folder: Path, *entries: str, now: list[float] | None = None) -> Quotas:
    file = folder / "quotas.toml"
    file.write_text("schema_version = 1\n" + "".join(f"[[quota]]\n{entry}\n" for entry in entries))
    clock = now or [NOON]
    return Quotas(file, lambda: clock[0])


def _spend(quotas: Quotas, at: float = NOON, account: str = "user:anna", space: str = "legal", tokens: int = 100, cost: int = 0) -> None:
    quotas.spend(account, space, int(at) // DAY, 1, tokens, cost)


def _headers(quotas: Quotas, who: Principal = ANNA, spaces: tuple[str, ...] | None = None) -> dict[bytes, bytes]:
    return dict(quotas.check(who, spaces))


def _is_spent(quotas: Quotas, who: Principal = ANNA, spaces: tuple[str, ...] | None = None) -> ApplianceError | None:
    try:
        quotas.check(who, spaces)
    except ApplianceError as error:
        assert (error.code, error.outcome.http) == ("quota_exceeded", 429)
        return error
    return None


def test_without_a_file_there_are_no_quotas(tmp_path: Path) -> None:
    quotas = Quotas(tmp_path / "quotas.toml")
    _spend(quotas)
    assert quotas.check(ANNA, None) == ()


def test_each_account_by_itself_a_person_together_with_their_keys(tmp_path: Path) -> None:
    quotas = _quotas(tmp_path, 'for = "each"\nper = "day"\ntokens = 200')
    _spend(quotas)
    assert _headers(quotas) == {b"x-quota-limit": b"200 tokens/day", b"x-quota-remaining": b"100", b"x-quota-reset": b"43200s"}
    _spend(quotas)
    error = _is_spent(quotas)
    assert error is not None
    assert (b"retry-after", b"43200") in error.context["headers"]  # type: ignore[operator]
    assert _is_spent(quotas, KEY)
    assert not _is_spent(quotas, BORIS)


@pytest.mark.parametrize(
    ("whom", "spent_for"),
    [("user:anna", {"anna", "key"}), ("role:member", {"anna", "key"}), ("role:admin", set()), ("space:legal", {"legal"}), ("box", {"anna", "key", "boris", "legal"})],
)  # fmt: skip
def test_whom_a_quota_is_for(tmp_path: Path, whom: str, spent_for: set[str]) -> None:
    quotas = _quotas(tmp_path, f'for = "{whom}"\nper = "day"\nrequests = 1')
    _spend(quotas)
    cases = {"anna": (ANNA, None), "key": (KEY, None), "boris": (BORIS, None), "legal": (BORIS, ("legal",))}
    assert {name for name, (who, spaces) in cases.items() if _is_spent(quotas, who, spaces)} == spent_for


def test_a_day_and_a_month_begin_anew(tmp_path: Path) -> None:
    now = [NOON]
    quotas = _quotas(tmp_path, 'for = "each"\nper = "day"\ntokens = 100', 'for = "each"\nper = "month"\ntokens = 250', now=now)
    _spend(quotas)
    assert _is_spent(quotas)
    now[0] = NOON + DAY
    assert not _is_spent(quotas)
    _spend(quotas, now[0])
    _spend(quotas, now[0])
    error = _is_spent(quotas)
    assert error is not None
    now[0] = datetime(2026, 2, 1, tzinfo=UTC).timestamp()
    assert not _is_spent(quotas)


def test_money_counts_and_a_warning_comes_before_the_refusal(tmp_path: Path) -> None:
    quotas = _quotas(tmp_path, 'for = "each"\nper = "month"\ncost = 2.5\nwarn_at = 0.5')
    _spend(quotas, cost=1_000_000_000)
    assert b"x-quota-warning" not in _headers(quotas)
    _spend(quotas, cost=1_000_000_000)
    assert _headers(quotas)[b"x-quota-warning"] == b"80 % of the cost of the month are spent"
    assert _headers(quotas)[b"x-quota-remaining"] == b"0.5"
    _spend(quotas, cost=1_000_000_000)
    error = _is_spent(quotas)
    assert error is not None and "2.5 cost a month" in error.message


def test_a_changed_file_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    quotas = _quotas(tmp_path, 'for = "each"\nper = "day"\ntokens = 100')
    _spend(quotas)
    (tmp_path / "quotas.toml").write_text("schema_version = 1\n[[quota]\n")
    quotas.refresh()
    assert _is_spent(quotas)
    (tmp_path / "quotas.toml").write_text('schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = 1000\n')
    quotas.refresh()
    assert not _is_spent(quotas)
    (tmp_path / "quotas.toml").unlink()
    quotas.refresh()
    assert quotas.rules == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "schema_version = 2",
        "schema_version = true",
        "schema_version = 1\nlimit = 3",
        "schema_version = 1\nquota = 3",
        'schema_version = 1\n[[quota]]\nfor = "anna"\nper = "day"\ntokens = 1',
        'schema_version = 1\n[[quota]]\nfor = "user:"\nper = "day"\ntokens = 1',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "week"\ntokens = 1',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = -1',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = 1.5',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ncost = nan',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = true',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = 1\nwarn_at = 2',
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ntokens = 1\ncolour = 2',
        "schema_version = 1\n#" + "x" * 300_000,
        "\x00",
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "quotas.toml").write_text(text)
    with pytest.raises(ApplianceError, match=r"quotas\.toml") as caught:
        read_quotas(tmp_path / "quotas.toml")
    assert caught.value.code == "settings_invalid"


async def test_after_a_restart_it_is_known_what_was_spent_and_what_another_replica_spends_is_learnt(tmp_path: Path) -> None:
    file = tmp_path / "quotas.toml"
    file.write_text(
        'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\ncost = 0.003\n[[quota]]\nfor = "space:legal"\nper = "month"\ntokens = 150\n'
    )
    engine = await open_database(tmp_path / "box.db", SCHEMA)
    try:
        store = SqlAlchemyUsage(engine)
        billed = Billed("user:anna", "user:anna", "big", "legal")
        before = UsageAccounts(store, 1, lambda _: Prices(10.0, 20.0), Quotas(file))
        before.count("user:anna", Usage(100, 50), billed)
        await before.flush()

        quotas = Quotas(file)
        after = UsageAccounts(store, 1, lambda _: Prices(10.0, 20.0), quotas)
        assert not _is_spent(quotas, BORIS, ("legal",))
        await after.recount()
        assert _is_spent(quotas, BORIS, ("legal",)), "150 tokens of the space were spent before"
        assert not _is_spent(quotas, ANNA)
        before.count("user:anna", Usage(100, 50), billed)
        await before.flush()
        after.count("user:anna", Usage(0, 0), billed)  # waits while the store is read, counted once
        await after.recount()
        assert _is_spent(quotas, ANNA), "0.004 were spent, 0.002 of them elsewhere"
    finally:
        await engine.dispose()

"""Log in, refresh, log out, and being recognised."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import KeySet

from appliance.identity.keys import is_key, new_secret
from appliance.identity.lockout import MOST_NAMES, Lockout
from appliance.identity.principal import SpaceRole
from appliance.identity.settings import IdentitySettings
from appliance.kit.errors import ApplianceError
from tests.unit.identity_bed import PASSWORD, ROOT, Clock, code_of, open_bed


async def test_a_login_gives_a_token_that_any_oidc_library_verifies_by_the_jwks(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        pair = await bed.identity.login(" Anna ", PASSWORD)
        document = json.loads(json.dumps(bed.identity.jwks()))
        decoded = jwt.decode(pair.access_token, KeySet.import_key_set(document), algorithms=["ES256"])
    assert decoded.header["kid"] == document["keys"][0]["kid"]
    assert "d" not in document["keys"][0]
    assert {"sub": "user:anna", "iss": "appliance", "aud": "appliance", "roles": ["member"]}.items() <= decoded.claims.items()
    assert decoded.claims["exp"] - decoded.claims["iat"] == pair.expires_in == 600
    assert decoded.claims["jti"]


async def test_wrong_password_and_unknown_user_look_the_same(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        errors = []
        for name, password in (("anna", "wrong password"), ("nobody", PASSWORD), ("", ""), ("a" * 10_000, "x" * 100_000)):
            with pytest.raises(ApplianceError) as caught:
                await bed.identity.login(name, password)
            errors.append((caught.value.code, caught.value.message))
        assert set(errors) == {("unauthenticated", errors[0][1])}
        denied = [record for record in bed.audit.records if record[0] == "deny"]
        assert [record[1] for record in denied] == ["user:anna", "user:unknown", "user:unknown", "user:unknown"]


async def test_an_access_token_ends_after_ten_minutes_although_it_is_cached(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        token = await bed.token_of("anna")
        assert (await bed.identity.authenticate(token)).subject == "user:anna"
        bed.clock.seconds += 599
        assert await code_of(bed.identity.authenticate(token)) == "ok"
        bed.clock.seconds += 1
        assert await code_of(bed.identity.authenticate(token)) == "unauthenticated"


def _forged(token: str) -> list[str]:
    header, claims, signature = token.split(".")

    def part(value: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return [
        "",
        "sk-",
        new_secret("sk-"),
        "a.b.c",
        "é\ud800",
        "x" * 100_000,
        f"{part({'alg': 'none'})}.{claims}.",
        f"{part({'alg': 'HS256'})}.{claims}.{signature}",
        f"{header}.{part({**body, 'sub': 'user:admin'})}.{signature}",
        f"{header}.{part({**body, 'exp': 9_999_999_999})}.{signature}",
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{header}.{claims}",
        token + "A",
    ]


async def test_forged_and_malformed_bearers_are_refused(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        for bearer in _forged(await bed.token_of("anna")):
            assert await code_of(bed.identity.authenticate(bearer)) == "unauthenticated", bearer[:80]
        assert any(record[:3] == ("deny", "anonymous", "session.authenticate") for record in bed.audit.records)


async def test_tokens_of_another_box_or_audience_are_refused(tmp_path: Path) -> None:
    async with open_bed(tmp_path / "a") as here, open_bed(tmp_path / "b") as there:
        for bed in (here, there):
            await bed.add_users("anna")
        assert await code_of(here.identity.authenticate(await there.token_of("anna"))) == "unauthenticated"
    async with open_bed(tmp_path / "a", audience="other") as other:
        foreign = await other.token_of("anna")
    async with open_bed(tmp_path / "a") as here:
        assert await code_of(here.identity.authenticate(foreign)) == "unauthenticated"


async def test_a_refresh_token_is_used_once_and_its_second_use_ends_the_session(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        first = await bed.identity.login("anna", PASSWORD)
        other = await bed.identity.login("anna", PASSWORD)
        second = await bed.identity.refresh(first.refresh_token)
        assert second.refresh_token != first.refresh_token
        assert await code_of(bed.identity.authenticate(second.access_token)) == "ok"
        assert await code_of(bed.identity.refresh(first.refresh_token)) == "unauthenticated"  # stolen or replayed
        assert await code_of(bed.identity.refresh(second.refresh_token)) == "unauthenticated"
        assert await code_of(bed.identity.authenticate(second.access_token)) == "unauthenticated"
        assert await code_of(bed.identity.authenticate(other.access_token)) == "ok"  # another login is another family
        assert {"reason": "reused"} in bed.audit.details


async def test_of_many_racing_refreshes_at_most_one_wins(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        pair = await bed.identity.login("anna", PASSWORD)
        codes = await asyncio.gather(*(code_of(bed.identity.refresh(pair.refresh_token)) for _ in range(12)))
        assert codes.count("ok") <= 1
        assert set(codes) <= {"ok", "unauthenticated"}


async def test_refresh_tokens_expire_and_expired_ones_are_deleted(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        pair = await bed.identity.login("anna", PASSWORD)
        bed.clock.seconds += 15 * 24 * 3600
        assert await code_of(bed.identity.refresh(pair.refresh_token)) == "unauthenticated"
        await bed.identity.login("anna", PASSWORD)
        bed.clock.seconds += 1
        await bed.identity.login("anna", PASSWORD)
        assert await code_of(bed.identity.refresh("nonsense")) == "unauthenticated"


async def test_logout_ends_refresh_and_access_at_once(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        pair = await bed.identity.login("anna", PASSWORD)
        await bed.identity.authenticate(pair.access_token)
        await bed.identity.logout(pair.refresh_token)
        await bed.identity.logout(pair.refresh_token)
        await bed.identity.logout("nonsense")
        assert await code_of(bed.identity.authenticate(pair.access_token)) == "unauthenticated"
        assert await code_of(bed.identity.refresh(pair.refresh_token)) == "unauthenticated"


async def test_disabling_stops_sessions_keys_and_logins_at_once(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        await bed.identity.directory.add_user(ROOT, "boss", PASSWORD, role="admin")
        pair, key = await bed.identity.login("anna", PASSWORD), await bed.key_of("anna")
        for bearer in (pair.access_token, key):
            await bed.identity.authenticate(bearer)
        await bed.identity.directory.set_disabled(ROOT, "anna", disabled=True)
        for bearer in (pair.access_token, key):
            assert await code_of(bed.identity.authenticate(bearer)) == "unauthenticated"
        assert await code_of(bed.identity.refresh(pair.refresh_token)) == "unauthenticated"
        assert await code_of(bed.identity.login("anna", PASSWORD)) == "unauthenticated"
        await bed.identity.directory.set_disabled(ROOT, "anna", disabled=False)
        assert await code_of(bed.identity.login("anna", PASSWORD)) == "ok"
        assert await code_of(bed.identity.authenticate(key)) == "ok"


async def test_a_change_made_by_another_process_is_noticed_within_a_second(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as box, open_bed(tmp_path, clock=box.clock) as cli:
        await box.add_users("anna")
        key = await box.key_of("anna")
        assert (await box.identity.authenticate(key)).subject.startswith("key:")
        async with cli.store.change() as rows:  # as its directory would, last administrator or not
            await rows.set_user("anna", disabled=True)
        box.clock.seconds += 0.95
        assert await code_of(box.identity.authenticate(key)) == "unauthenticated"


async def test_a_cached_principal_costs_no_statement(tmp_path: Path) -> None:
    import sqlalchemy as sa

    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        token = await bed.token_of("anna")
        first = await bed.identity.authenticate(token)
        counted: list[str] = []
        sa.event.listen(bed.store._engine.sync_engine, "before_cursor_execute", lambda *args: counted.append(args[2]))
        for _ in range(100):
            assert await bed.identity.authenticate(token) is first
        assert counted == []


async def test_the_cache_is_bounded(tmp_path: Path) -> None:
    async with open_bed(tmp_path, cache_entries=3) as bed:
        await bed.add_users("anna")
        for _ in range(6):
            await bed.principal_of("anna")
        assert len(bed.identity._cache) == 3


async def test_a_principal_read_before_a_change_does_not_enter_the_cache_after_it(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        key = await bed.key_of("anna")

        original = bed.identity._from_key

        async def slow(*arguments: object) -> object:
            entry = await original(*arguments)  # type: ignore[arg-type]
            bed.identity._cache.forget()  # a change commits here
            return entry

        bed.identity._from_key = slow  # type: ignore[assignment,method-assign]
        await bed.identity.authenticate(key)
        assert len(bed.identity._cache) == 0


async def test_guessing_one_password_is_slowed_down_and_forgiven(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna", "boris")
        codes = await asyncio.gather(*(code_of(bed.identity.login("anna", "guess guess")) for _ in range(30)))
        assert codes.count("unauthenticated") == 5
        assert codes.count("rate_limited") == 25
        assert await code_of(bed.identity.login("anna", PASSWORD)) == "rate_limited"
        assert await code_of(bed.identity.login("boris", PASSWORD)) == "ok"
        bed.clock.seconds += 61
        assert await code_of(bed.identity.login("anna", PASSWORD)) == "ok"
        assert await code_of(bed.identity.login("anna", "wrong again")) == "unauthenticated"


async def test_a_stranger_who_polls_does_not_keep_the_owner_out(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        for _ in range(600):  # five minutes
            bed.clock.seconds += 0.5
            await code_of(bed.identity.login("anna", "guess guess", address="10.0.0.66"))
        assert await code_of(bed.identity.login("anna", PASSWORD, address="10.0.0.66")) == "rate_limited"
        assert await code_of(bed.identity.login("anna", PASSWORD, address="10.0.0.7")) == "ok"
        denied = [detail for detail in bed.audit.details if detail and detail.get("reason") == "wrong_credentials"]
        assert len(denied) == 5  # whoever comes too soon begins his wait again


async def test_many_strangers_slow_the_name_down_but_not_where_its_owner_was(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        assert await code_of(bed.identity.login("anna", PASSWORD, address="10.0.0.7")) == "ok"
        codes = []
        for number in range(80):
            bed.clock.seconds += 0.5
            codes.append(await code_of(bed.identity.login("anna", "guess guess", address=f"10.1.0.{number}")))
        assert codes[:50] == ["unauthenticated"] * 50
        assert codes[50:].count("unauthenticated") <= 6
        assert await code_of(bed.identity.login("anna", PASSWORD, address="10.2.0.1")) == "rate_limited"
        assert await code_of(bed.identity.login("anna", PASSWORD, address="10.0.0.7")) == "ok"


def test_one_household_is_one_address() -> None:
    lockout = Lockout(IdentitySettings())
    for number in range(5):
        lockout.begin("anna", 1.0, f"2001:db8::{number}")
    with pytest.raises(ApplianceError, match="rate_limited"):
        lockout.begin("anna", 1.0, "2001:db8::ffff")
    with pytest.raises(ApplianceError) as raised:
        lockout.begin("anna", 1.5, "2001:db8::1%eth0")
    assert raised.value.context["retry_after_seconds"] == 1
    lockout.begin("anna", 1.0, "2001:db8:1::1")


def test_guessing_over_many_names_is_slowed_down_in_bounded_memory() -> None:
    lockout, now = Lockout(IdentitySettings()), 0.0
    refused = 0
    for number in range(20_000):
        now += 0.01
        try:
            lockout.begin(f"user{number}", now)
        except ApplianceError:
            refused += 1
    assert refused > 18_000
    assert len(lockout) <= MOST_NAMES


async def test_a_flood_of_bad_bearers_is_counted_rather_than_written_out(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        for _ in range(200):
            await code_of(bed.identity.authenticate("nonsense"))
        assert len(bed.audit.records) == 50
        bed.clock.seconds += 1
        await code_of(bed.identity.authenticate("nonsense"))
        assert bed.audit.details[-1] == {"reason": "not_valid", "suppressed_before": 150}


async def test_nobody_is_let_in_or_turned_away_without_an_audit_record(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.identity.directory.add_user(ROOT, "boss", PASSWORD, role="admin")
        token = await bed.token_of("boss")
        bed.audit.is_full = True
        assert await code_of(bed.identity.authenticate(token)) == "disk_full"
        assert await code_of(bed.identity.login("boss", PASSWORD)) == "disk_full"
        bed.audit.is_full = False
        assert (await bed.identity.authenticate(token)).is_admin


async def test_secrets_stand_nowhere_in_the_database(tmp_path: Path) -> None:
    async with open_bed(tmp_path) as bed:
        await bed.add_users("anna")
        pair, key = await bed.identity.login("anna", PASSWORD), await bed.key_of("anna")
        await bed.identity.authenticate(key)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("identity.db*"))
    for secret in (PASSWORD, pair.refresh_token, pair.access_token, key):
        assert secret.encode() not in stored


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_keys_have_one_form(_: int) -> None:
    secret = new_secret("sk-")
    assert is_key(secret)
    assert len(secret) == 46


async def test_the_stored_role_is_an_enum_level(tmp_path: Path) -> None:
    async with open_bed(tmp_path, clock=Clock()) as bed:
        await bed.add_users("anna")
        await bed.identity.directory.add_space(ROOT, "legal")
        await bed.identity.directory.grant(ROOT, "legal", "user:anna", SpaceRole.EDITOR)
        assert (await bed.principal_of("anna")).spaces == {"legal": SpaceRole.EDITOR}

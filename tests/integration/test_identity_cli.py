"""``appliance users|spaces|keys|audit`` on a home, also while a box runs on it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from appliance.audit.bootstrap import open_audit
from appliance.cli import audit, keys, spaces, users
from appliance.identity.bootstrap import bootstrap_admin, open_identity
from appliance.identity.principal import SpaceRole
from appliance.identity.service import Identity
from appliance.kit.errors import ApplianceError

app = typer.Typer()
for module in (users, spaces, keys, audit):
    app.add_typer(module.app)


def call(*arguments: str, input_text: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=input_text)


def data(*arguments: str, input_text: str | None = None) -> object:
    result = call(*arguments, "--json", input_text=input_text)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def code(*arguments: str) -> str:
    error = call(*arguments).exception
    assert isinstance(error, ApplianceError)
    assert error.hint
    return error.code


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APPLIANCE_HOME", str(tmp_path))

    async def make() -> None:
        async with await open_audit(tmp_path) as log:
            await bootstrap_admin(tmp_path, log)

    asyncio.run(make())
    return tmp_path


@asynccontextmanager
async def running_box(home: Path) -> AsyncIterator[Identity]:
    async with await open_audit(home) as log, open_identity(home, log) as identity:
        yield identity


def test_users_spaces_and_keys_from_the_command_line(home: Path) -> None:
    made = data("users", "add", "anna", "--generate")
    assert isinstance(made, dict)
    assert len(made["password"]) == 24
    assert data("users", "add", "boris", "--password-file", "-", input_text="correct horse\n") == {"name": "boris", "password": None}
    assert call("spaces", "add", "legal", "--title", "Договоры").exit_code == 0
    assert call("spaces", "grant", "legal", "anna", "editor").exit_code == 0
    assert data("spaces", "list") == {
        "data": [
            {"name": "default", "title": "Default", "members": []},
            {"name": "legal", "title": "Договоры", "members": ["anna:editor"]},
        ]
    }
    key = data("keys", "create", "--owner", "anna", "--role", "owner", "--space", "legal", "--days", "1")
    assert isinstance(key, dict)

    async def check() -> None:
        async with running_box(home) as box:
            await box.login("anna", made["password"])
            await box.login("boris", "correct horse")
            principal = await box.authenticate(key["key"])
            assert dict(principal.spaces) == {"legal": SpaceRole.EDITOR}

    asyncio.run(check())
    assert key["key"] not in call("keys", "list").stdout
    assert call("spaces", "remove", "legal", "--yes").exit_code == 0
    assert call("audit", "verify").stdout.startswith("ok: ")


def test_agents_and_operators_from_the_command_line(home: Path) -> None:
    data("users", "add", "oleg", "--role", "operator:level2", "--generate")
    call("spaces", "add", "legal")
    made = data("keys", "create", "--role", "agent:claude_opus", "--space", "legal", "--space-role", "editor", "--title", "Claude Code")
    assert isinstance(made, dict)
    assert (made["role"], made["space_role"]) == ("agent:claude_opus", "editor")
    listed = data("users", "list")
    assert isinstance(listed, dict)
    assert {user["name"]: user["role"] for user in listed["data"]} == {"admin": "admin", "oleg": "operator:level2"}
    assert "agent:claude_opus" in call("keys", "list").stdout

    async def check() -> None:
        async with running_box(home) as box:
            principal = await box.authenticate(made["key"])
            assert principal.roles == {"agent:claude_opus"}
            assert dict(principal.spaces) == {"legal": SpaceRole.EDITOR}

    asyncio.run(check())


def test_a_running_box_notices_within_a_second(home: Path) -> None:
    data("users", "add", "anna", "--generate")
    key = data("keys", "create", "--owner", "anna")
    assert isinstance(key, dict)

    async def check() -> None:
        async with running_box(home) as box:
            await box.authenticate(key["key"])
            for command, expected in ((("users", "disable", "anna"), True), (("users", "enable", "anna"), False)):
                assert (await asyncio.to_thread(call, *command)).exit_code == 0
                async with asyncio.timeout(1.0):
                    while await is_refused(box, key["key"]) is not expected:
                        await asyncio.sleep(0.02)
            assert (await asyncio.to_thread(call, "keys", "revoke", key["id"])).exit_code == 0
            async with asyncio.timeout(1.0):
                while not await is_refused(box, key["key"]):
                    await asyncio.sleep(0.02)

    asyncio.run(check())
    assert call("audit", "verify").exit_code == 0  # two processes' records in one chain


async def is_refused(box: Identity, bearer: str) -> bool:
    try:
        await box.authenticate(bearer)
    except ApplianceError as error:
        assert error.code == "unauthenticated"
        return True
    return False


def test_setting_the_first_password_removes_the_file_with_the_old_one(home: Path) -> None:
    assert call("users", "passwd", "admin", "--generate").exit_code == 0
    assert not (home / "admin.password").exists()


def test_mistakes_have_codes_and_hints(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code("users", "add", "anna") == "invalid_request"  # no password, no terminal to ask on
    assert code("users", "add", "Anna!", "--generate") == "invalid_request"
    assert code("users", "add", "admin", "--generate") == "conflict"
    assert code("users", "disable", "admin") == "conflict"
    assert code("users", "disable", "nobody") == "not_found"
    assert code("spaces", "grant", "default", "admin", "king") == "invalid_request"
    assert code("spaces", "grant", "absent", "admin", "reader") == "not_found"
    assert code("keys", "revoke", "k_absent") == "not_found"
    assert code("audit", "verify", "--log", str(home / "absent")) == "not_found"
    assert code("audit", "verify", "--public-key", str(home / "absent")) == "home_invalid"
    assert code("audit", "verify", "--expect", "1:xyz") == "invalid_request"
    assert code("users", "add", "eva", "--role", "king", "--generate") == "invalid_request"
    assert code("users", "add", "eva", "--role", "operator:level1", "--admin", "--generate") == "invalid_request"
    assert code("users", "add", "eva", "--role", "system:scheduler") == "invalid_request"
    assert code("keys", "create", "--role", "agent:oracle") == "invalid_request"
    assert code("keys", "create", "--role", "reader", "--space-role", "owner") == "invalid_request"
    monkeypatch.setenv("APPLIANCE_HOME", str(home / "nowhere"))
    assert code("users", "list") == "home_invalid"
    assert not (home / "nowhere").exists()


def test_a_space_with_documents_goes_only_by_force(home: Path) -> None:
    call("spaces", "add", "legal")
    with closing(sqlite3.connect(home / "box.db")) as database:
        database.executescript(
            "CREATE TABLE documents (id TEXT, space TEXT); INSERT INTO documents VALUES ('d1', 'legal'), ('d2', 'legal'), ('d3', 'hr')"
        )
    result = call("spaces", "remove", "legal", "--yes")
    assert isinstance(result.exception, ApplianceError)
    assert result.exception.code == "conflict"
    assert "2 documents" in result.exception.message
    assert "--force" in result.exception.hint
    assert call("spaces", "remove", "legal", "--force", input_text="n\n").exit_code == 1
    forced = call("spaces", "remove", "legal", "--force", "--yes")
    assert forced.exit_code == 0
    assert "2 documents went with it" in forced.stderr


def test_a_log_whose_key_is_gone_is_not_continued_with_another(home: Path) -> None:
    (home / "keys" / "audit.key.pem").unlink()
    result = call("users", "list")
    assert isinstance(result.exception, ApplianceError)
    assert result.exception.code == "audit_broken"
    assert "the audit key is missing" in result.exception.message
    assert "backup" in result.exception.hint
    assert not (home / "keys" / "audit.key.pem").exists()


def test_a_damaged_log_is_explained_in_words(home: Path) -> None:
    segment = next((home / "audit").glob("*.log"))
    segment.write_bytes(segment.read_bytes().replace(b"user:admin", b"user:nimda"))
    result = call("audit", "verify")
    assert isinstance(result.exception, ApplianceError)
    assert "Fault" not in result.exception.message
    assert "no record holds, record 1 is the first bad one" in result.exception.message


def test_the_log_is_verified_elsewhere_with_the_public_key_alone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    noted = call("audit", "head").stdout.strip()
    call("spaces", "add", "legal")
    copy = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(home / "audit", copy / "log")
    shutil.copy(home / "keys" / "audit.pub.pem", copy)
    (copy / "log" / "lock").unlink()
    place = ("--public-key", str(copy / "audit.pub.pem"), "--log", str(copy / "log"))
    verdict = data("audit", "verify", *place, "--expect", noted)
    assert isinstance(verdict, dict)
    assert verdict["ok"] is True
    assert [json.loads(line)["seq"] for line in call("audit", "export", "--from", "2", "--log", place[3]).stdout.splitlines()] == [2]
    assert "space.add" in call("audit", "tail", "-n", "1", *place).stdout
    segment = next((copy / "log").glob("*.log"))
    segment.write_bytes(segment.read_bytes().replace(b"space:legal", b"space:lagel"))
    result = call("audit", "verify", *place, "--json")
    assert isinstance(result.exception, ApplianceError)
    assert result.exception.outcome.exit == 34
    assert json.loads(result.stdout)["fault"]["seq"] == 2


@pytest.mark.parametrize("noun", ["users", "spaces", "keys", "audit"])
def test_help_has_examples(noun: str) -> None:
    assert "Example" in call(noun, "--help").stdout


def test_help_names_the_roles() -> None:
    for command in (("users", "add"), ("keys", "create")):
        text = " ".join(call(*command, "--help").stdout.split())
        assert "operator:level1" in text
        assert "--role" in text

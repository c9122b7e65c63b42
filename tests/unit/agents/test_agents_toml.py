"""``agents.toml``: strict, reloaded while running, a refused file changes nothing."""

from __future__ import annotations

import pytest

from appliance.contracts.router.v1.agents import Agents
from appliance.kit.errors import ApplianceError
from services.agents.agents_file import AgentsFile
from services.agents.agents_toml import load_agents
from tests.unit.agents.tool_bed import RememberingAudit

GOOD = """
schema_version = 1
[agents.lawyer]
title_ru = "Юрист"
system_prompt = "You are careful."
tools = ["search_documents", "archive__*"]
spaces = ["legal"]
max_rounds = 3
[servers.archive]
command = ["/opt/archive", "--stdio"]
[[policies]]
tools = "mail__*"
mode = "ASK"
approver = "admin"
"""


def test_agents_servers_and_rules_are_read(tmp_path):
    (tmp_path / "agents.toml").write_text(GOOD)
    config = load_agents(tmp_path / "agents.toml")
    lawyer = config.agents["lawyer"]
    assert lawyer.titles == {"ru": "Юрист", "en": "Юрист"} and lawyer.spaces == ("legal",) and lawyer.max_rounds == 3
    assert lawyer.allows("archive__find") and lawyer.allows("search_documents") and not lawyer.allows("calculator")
    assert {"assistant", "documents"} < config.agents.keys() and config.rules[0].approver == "admin"


def test_without_a_file_there_are_the_built_in_agents(tmp_path):
    config = load_agents(tmp_path / "agents.toml")
    assert sorted(config.agents) == ["assistant", "documents"] and not config.agents["assistant"].retrieval


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("schema_version = 2", "schema_version"),
        ("", "schema_version"),
        ("schema_version = 1\nextra = 1", "extra"),
        ("schema_version = 1\n[agents.x]\ncolour = 1", "colour"),
        ("schema_version = 1\n[agents.X]", "agents.X"),
        ("schema_version = 1\n[agents.x]\ntools = ['a b']", "tools"),
        ("schema_version = 1\n[agents.x]\nmax_rounds = 100", "max_rounds"),
        ("schema_version = 1\n[servers.x]", "servers.x"),
        ("schema_version = 1\n[servers.x_y]\nurl = 'http://h/mcp'", "servers.x_y"),
        ("schema_version = 1\n[servers.x]\ncommand = ['relative']", "absolute"),
        ("schema_version = 1\n[servers.x]\ncommand = ['/a']\nurl = 'http://h/'", "either"),
        ("schema_version = 1\n[servers.x]\nurl = 'ftp://h/'", "url"),
        ("schema_version = 1\n[servers.x]\nurl = 'http://u:p@h/'", "password"),
        ("schema_version = 1\n[[policies]]\ntools = '*'\nmode = 'MAYBE'", "MAYBE"),
        ("schema_version = [", "agents.toml"),
    ],
)
def test_what_is_not_known_is_refused_and_named(tmp_path, text, named):
    (tmp_path / "agents.toml").write_text(text)
    with pytest.raises(ApplianceError, match="settings_invalid") as refusal:
        load_agents(tmp_path / "agents.toml")
    assert named in refusal.value.message


async def test_a_new_file_is_taken_over_and_a_bad_one_leaves_the_old_in_force(tmp_path):
    file = tmp_path / "agents.toml"
    audit = RememberingAudit()
    agents = AgentsFile(file, audit)
    contract: Agents = agents
    taken = []

    async def take_over(config):
        taken.append(sorted(config.servers))

    file.write_text(GOOD)
    await agents.look(take_over)
    await agents.look(take_over)
    assert taken == [["archive"]] and contract.get("lawyer") is not None and agents.allows("lawyer", "archive__x")
    file.write_text(GOOD + "nonsense")
    await agents.look(take_over)
    assert agents.health().startswith("degraded") and contract.get("lawyer") is not None
    file.unlink()
    await agents.look(take_over)
    assert contract.get("lawyer") is None and not agents.allows("lawyer", "x") and agents.health() == "ok"
    assert [one["outcome"] for one in audit.records] == ["ok", "error", "ok"]

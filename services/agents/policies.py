"""What may run without asking. Pure. The strictest rule that matches counts (DENY > ASK > ALWAYS); without one, reading is ALWAYS and writing is ASK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from appliance.contracts.tools.v1.approvals import Approver
from services.agents.plugin import Tool

Mode = Literal["ALWAYS", "ASK", "DENY"]
STRICTNESS: Final[dict[Mode, int]] = {"ALWAYS": 0, "ASK": 1, "DENY": 2}


@dataclass(frozen=True, slots=True)
class ToolRule:
    """A rule of ``agents.toml``: ``tools`` is a name, or a prefix that ends in ``*``."""

    tools: str
    mode: Mode
    approver: Approver = "caller"

    def matches(self, name: str) -> bool:
        """Whether it speaks of this tool."""
        return name.startswith(self.tools[:-1]) if self.tools.endswith("*") else name == self.tools


def rule_for(tool: Tool, rules: Sequence[ToolRule]) -> ToolRule:
    """What counts for a tool; of rules that are equally strict, the one that asks an administrator."""
    matching = [rule for rule in rules if rule.matches(tool.name)]
    default = ToolRule(tool.name, "ALWAYS" if tool.read_only else "ASK")
    return max(matching, key=lambda rule: (STRICTNESS[rule.mode], rule.approver == "admin"), default=default)

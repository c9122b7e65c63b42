"""Packets that left, counted by the kernel: the second witness beside the trace. Reads ``nft`` and ``/proc/net``; changes nothing.

``leaving_packets`` what the output hook saw that is not for loopback · ``outer_packets`` what the outer link sent (also what raw sockets send past the
hook) · ``kernel_icmpv6_packets`` the kernel's own reports, dropped before the link · ``unroutable`` lookups that found no route: where there is no
way out, attempts end here before they become packets.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from appliance.kit.errors import ApplianceError
from appliance.proof.tools import Tools


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts since the namespace was made, or between two moments."""

    leaving_packets: int = 0
    outer_packets: int = 0
    kernel_icmpv6_packets: int = 0
    unroutable: int = 0

    def since(self, earlier: Counters) -> Counters:
        """What came after ``earlier``."""
        return Counters(**{entry.name: getattr(self, entry.name) - getattr(earlier, entry.name) for entry in fields(self)})

    def plus(self, more: Counters) -> Counters:
        """Both together."""
        return Counters(**{entry.name: getattr(self, entry.name) + getattr(more, entry.name) for entry in fields(self)})

    @property
    def is_silent(self) -> bool:
        """Nothing left, and nothing tried to."""
        return self.leaving_packets == 0 and self.outer_packets == 0 and self.unroutable == 0

    def document(self) -> dict[str, int]:
        """As JSON."""
        return asdict(self)


def read_counters(tools: Tools) -> Counters:
    """The counters of this network namespace now. Raises ApplianceError ``unavailable`` when one cannot be read."""
    listed = subprocess.run([tools["nft"], "-j", "list", "counters", "table", "inet", "airgap"], capture_output=True, timeout=30, check=False)
    try:
        found: dict[str, Any] = {
            entry["counter"]["name"]: int(entry["counter"]["packets"]) for entry in json.loads(listed.stdout)["nftables"] if "counter" in entry
        }
        return Counters(found["leaving"], _sent_by_link(), found["kernel_icmpv6"], _unroutable())
    except (ValueError, KeyError, OSError) as exc:
        raise ApplianceError("unavailable", f"the packet counters cannot be read: {exc}", hint="check that nft works: nft list ruleset") from exc


def _sent_by_link() -> int:
    """Packets that all links but loopback have sent (proc(5), /proc/net/dev: the tenth number)."""
    rows = (line.partition(":") for line in Path("/proc/self/net/dev").read_text().splitlines()[2:])
    sent = {name.strip(): int(numbers.split()[9]) for name, _, numbers in rows}
    return sum(count for name, count in sent.items() if name != "lo")


def _unroutable() -> int:
    """OutNoRoutes of IPv4 and IPv6 (RFC 4293)."""
    lines = Path("/proc/self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    total = int(values[names.index("OutNoRoutes")])
    path = Path("/proc/self/net/snmp6")
    rows = (line.split() for line in path.read_text().splitlines()) if path.exists() else iter([])
    return total + sum(int(row[1]) for row in rows if row[0] == "Ip6OutNoRoutes")

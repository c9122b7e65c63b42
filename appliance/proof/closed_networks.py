"""The three kinds of network without a way out, made inside a fresh network namespace. Owns addresses, routes, the packet rules, the files of name lookup.

``no-route``: nothing but loopback. ``refuse``: a default route to a neighbour that answers every connection with a reset and every datagram with
"port unreachable". ``drop``: the same route, and the neighbour swallows everything. The neighbour is a namespace of its own, so packets really leave.

The kernel's own chatter is kept down: neighbours are known (no ARP, no ND), no autoconfiguration, no link-local address. What it sends all the
same (multicast reports of ICMPv6) has its own counter.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.proof.canary import RESOLVER_ADDRESS
from appliance.proof.tools import SEARCH_PATH, Tools

MODES: Final = ("no-route", "refuse", "drop")
OUTER: Final = "outer0"
_PEER: Final = "peer0"
_MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02")
_FILES: Final = {
    "/etc/resolv.conf": f"nameserver {RESOLVER_ADDRESS}\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
_QUIET: Final = {
    "conf/{}/accept_ra": "0",
    "conf/{}/router_solicitations": "0",
    "conf/{}/accept_dad": "0",
    "conf/{}/addr_gen_mode": "1",
    "conf/{}/autoconf": "0",
}
RULES: Final = f"""table inet airgap {{
  counter leaving {{ }}
  counter kernel_icmpv6 {{ }}
  chain output {{
    type filter hook output priority -500; policy accept;
    oifname "lo" accept
    oifname "{OUTER}" icmpv6 type {{ mld-listener-report, mld2-listener-report, mld-listener-done }} counter name kernel_icmpv6 drop
    counter name leaving
  }}
}}
"""
_DROP: Final = "table inet wall { chain first { type filter hook prerouting priority -500; policy drop; }\n}\n"


def hide_the_host(folder: Path) -> None:
    """Cover what leads out by files: daemons' sockets in ``/run``, the host's resolver settings. Needs a mount namespace of one's own.

    Raises:
        ApplianceError: ``unavailable`` when a cover cannot be laid.
    """
    _run(["mount", "--make-rprivate", "/"])
    _run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=16m", "tmpfs", "/run"])
    for name, text in _FILES.items():
        cover = folder / Path(name).name
        cover.write_text(text)
        cover.chmod(0o644)
        target = Path(name).resolve()
        if target.is_relative_to("/run"):  # a link to what a daemon of the host writes
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        if not target.exists():
            raise ApplianceError("unavailable", f"this machine has no {name}", hint=f"make an empty one: touch {name}")
        _run(["mount", "--bind", str(cover), str(target)])


def close_network(mode: str, tools: Tools) -> subprocess.Popen[bytes] | None:
    """Make this process's namespace a network of kind ``mode``, with counters.

    Returns:
        The process that holds the neighbour's namespace; None without a neighbour. It ends with its standard input.

    Raises:
        ApplianceError: ``unavailable`` when the kernel refuses a step.
    """
    neighbour = None
    _be_quiet("all", "default")
    _run([tools["ip"], "link", "set", "lo", "up"])
    if mode != "no-route":
        neighbour = _neighbour(mode, tools)
    _run([tools["nft"], "-f", "-"], RULES)
    return neighbour


def _neighbour(mode: str, tools: Tools) -> subprocess.Popen[bytes]:
    ip = tools["ip"]
    held = subprocess.Popen(
        [tools["unshare"], "--net", "sh", "-c", "echo ready; exec cat >/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": SEARCH_PATH},
    )
    assert held.stdout is not None
    if held.stdout.readline() != b"ready\n":
        raise ApplianceError("unavailable", "cannot make a second network namespace", hint="run as root, on a kernel with network namespaces")
    inside = [tools["nsenter"], f"--net=/proc/{held.pid}/ns/net"]
    _run([ip, "link", "add", OUTER, "address", _MACS[0], "type", "veth", "peer", "name", _PEER, "address", _MACS[1], "netns", str(held.pid)])
    _be_quiet(OUTER)
    for step in _peer_steps(mode):
        _run([*inside, *(tools[step[0]] if part == step[0] else part for part in step)])
    if mode == "drop":
        _run([*inside, tools["nft"], "-f", "-"], _DROP)
    for step in (
        ("address", "add", "10.99.0.2/30", "dev", OUTER),
        ("-6", "address", "add", "fd99::2/64", "dev", OUTER, "nodad"),
        ("link", "set", OUTER, "up"),
        ("neighbour", "replace", "10.99.0.1", "lladdr", _MACS[1], "dev", OUTER, "nud", "permanent"),
        ("-6", "neighbour", "replace", "fd99::1", "lladdr", _MACS[1], "dev", OUTER, "nud", "permanent"),
        ("route", "add", "default", "via", "10.99.0.1"),
        ("-6", "route", "add", "default", "via", "fd99::1", "dev", OUTER),
    ):
        _run([ip, *step])
    return held


def _peer_steps(mode: str) -> list[tuple[str, ...]]:
    """The neighbour takes every address for its own: its kernel then refuses as a live host does on a closed port."""
    steps: list[tuple[str, ...]] = [
        ("ip", "link", "set", "lo", "up"),
        ("ip", "address", "add", "10.99.0.1/30", "dev", _PEER),
        ("ip", "-6", "address", "add", "fd99::1/64", "dev", _PEER, "nodad"),
        ("ip", "link", "set", _PEER, "up"),
        ("ip", "neighbour", "replace", "10.99.0.2", "lladdr", _MACS[0], "dev", _PEER, "nud", "permanent"),
        ("ip", "-6", "neighbour", "replace", "fd99::2", "lladdr", _MACS[0], "dev", _PEER, "nud", "permanent"),
    ]
    if mode == "refuse":
        steps += [("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo"), ("ip", "-6", "route", "add", "local", "::/0", "dev", "lo")]
    return steps


def _be_quiet(*links: str) -> None:
    for link in links:
        for name, value in _QUIET.items():
            with suppress(OSError):  # a kernel without IPv6 has nothing to keep quiet
                Path("/proc/sys/net/ipv6", name.format(link)).write_text(value)


def _run(command: Sequence[str], text: str = "") -> None:
    ended = subprocess.run(command, input=text.encode(), capture_output=True, timeout=30, check=False, env={"PATH": SEARCH_PATH})
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip()[-300:]
        raise ApplianceError(
            "unavailable", f"cannot close the network: {' '.join(command)[:120]}: {said}", hint="run as root, on a kernel with namespaces"
        )

"""Lines of strace 6.1 as recorded (`-f --seccomp-bpf -qq -ttt -Y -yy -v -s 0`), and makers of reports for tests of the proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.proof.attempts import Attempt, find_attempts
from appliance.proof.counters import Counters
from appliance.proof.journey import PHASES
from appliance.proof.report import make_report, mode_document, with_starts
from appliance.proof.trace import Call, read_lines

KEY_SEED = bytes(range(32))
FOLDER = "/tmp/proof/drop"
INNER = [
    "10<python> 1795261113.699735 socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 14<TCP:[94387]>",
    '10<python> 1795261113.708085 bind(14<TCP:[94387]>, {sa_family=AF_INET, sin_port=htons(8899), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
    '9<appliance> 1795261115.816924 connect(3<TCP:[94423]>, {sa_family=AF_INET, sin_port=htons(8899), sin_addr=inet_addr("127.0.0.1")}, 16) = -1 EINPROGRESS (Operation now in progress)',
    '9<appliance> 1795261115.818567 sendto(3<TCP:[127.0.0.1:37934->127.0.0.1:8899]>, ""..., 148, 0, NULL, 0) = 148',
    "87<python> 1795261116.972952 socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = 3<UNIX-STREAM:[94473]>",
    '87<python> 1795261116.973458 connect(3<UNIX-STREAM:[94473]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)',
    '87<python> 1795261116.974055 connect(3<UNIX-STREAM:[94474]>, {sa_family=AF_UNIX, sun_path=@"abstract"}, 11) = -1 ECONNREFUSED (Connection refused)',
    '87<python> 1795261116.975000 connect(5<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0',
    '87<python> 1795261116.975100 connect(5<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::ffff:127.0.0.1", &sin6_addr), sin6_scope_id=0}, 28) = 0',
    "87<python> 1795261116.975200 sendto(6<NETLINK:[ROUTE:87]>, [{nlmsg_len=20, nlmsg_type=RTM_GETADDR, nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP, nlmsg_seq=1, nlmsg_pid=0}, {ifa_family=AF_UNSPEC, ...}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 20",
    '87<python> 1795261116.975300 sendmsg(7<UNIX-STREAM:[1->2]>, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base=""..., iov_len=1}], msg_iovlen=1, msg_control=[{cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[3</tmp/x>]}], msg_controllen=24, msg_flags=0}, 0) = 1',
    "87<tokio rt-1> 1795261116.975400 +++ exited with 0 +++",
    "88<python> 1795261116.975500 +++ killed by SIGKILL +++",
    "89<python> 1795261116.975600 +++ superseded by execve in pid 87<sh> +++",
    "90<python> 1795261116.975700 ???( <unfinished ...>",
]
OUTER = {
    "tcp": '12<curl> 1795261482.100000 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1 ENETUNREACH (Network is unreachable)',
    "tcp-killed": '12<curl> 1795261482.100000 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16 <unfinished ...>) = ?',
    "udp": '12<dig> 1795261482.873296 sendto(3<UDP:[0.0.0.0:43122]>, ""..., 1, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("198.51.100.1")}, 16) = 1',
    "message": '12<dig> 1795261482.872286 sendmsg(3<UDP:[0.0.0.0:43122]>, {msg_name={sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.2")}, msg_namelen=16, msg_iov=[{iov_base=""..., iov_len=5}], msg_iovlen=1, msg_controllen=0, msg_flags=0}, 0) = 5',
    "messages": '12<dig> 1795261618.133888 sendmmsg(3<UDP:[130623]>, [{msg_hdr={msg_name={sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, msg_namelen=16, msg_iov=[{iov_base=""..., iov_len=5}], msg_iovlen=1, msg_controllen=0, msg_flags=0}, msg_len=5}, {msg_hdr={msg_name={sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.2")}, msg_namelen=16, msg_iov=[{iov_base=""..., iov_len=5}], msg_iovlen=1, msg_controllen=0, msg_flags=0}, msg_len=5}], 2, 0) = 2',
    "inet6": '12<x> 1795261482.875751 connect(5<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(1), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "fe80::1", &sin6_addr), sin6_scope_id=if_nametoindex("lo")}, 28) = -1 ENETUNREACH (Network is unreachable)',
    "mapped": '12<x> 1795261482.876418 connect(5<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(1), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::ffff:1.2.3.4", &sin6_addr), sin6_scope_id=1}, 28) = -1 ETIMEDOUT (Connection timed out)',
    "loopback resolver": '12<x> 1795261482.876418 connect(5<UDP:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
    "own outer address": '12<x> 1795261482.876418 connect(5<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("10.99.0.2")}, 16) = 0',
    "multicast": '12<x> 1795261482.876418 sendto(5<UDP:[1]>, ""..., 9, 0, {sa_family=AF_INET, sin_port=htons(1900), sin_addr=inet_addr("239.255.255.250")}, 16) = 9',
    "daemon of the host": '12<x> 1795261482.876418 connect(5<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42) = -1 ENOENT (No such file or directory)',
    "an nscd that answers": '12<x> 1795261482.876418 connect(5<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = 0',
    "a path that climbs": '12<x> 1795261482.876418 connect(5<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/tmp/proof/drop/../../../run/docker.sock"}, 110) = 0',
    "a path below the box, which may be a link": '12<x> 1795261482.876418 connect(5<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/tmp/proof/drop/home/run/x.sock"}, 110) = 0',
    "a path beside": '12<x> 1795261482.876418 connect(5<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/tmp/proof/drop-two/s"}, 110) = 0',
    "a relative path": '12<x> 1795261482.876418 connect(5<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="s"}, 110) = 0',
    "packet": "12<x> 1795261618.108464 socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)) = 6<socket:[130613]>",
    "raw": "12<x> 1795261618.114923 socket(AF_INET, SOCK_RAW|SOCK_CLOEXEC, IPPROTO_ICMP) = -1 EPERM (Operation not permitted)",
    "hypervisor": "12<x> 1795261618.115146 socket(AF_VSOCK, SOCK_DGRAM, 0) = -1 ENODEV (No such device)",
    "unknown family": "12<x> 1795261618.114994 socket(0x63 /* AF_??? */, SOCK_STREAM, 0) = -1 EAFNOSUPPORT (Address family not supported by protocol)",
    "connect of unknown family": '12<x> 1795261482.873624 connect(3<UDP:[0.0.0.0:43122]>, {sa_family=0x4d /* AF_??? */, sa_data="\\0005\\177\\0\\0\\1"}, 16) = -1 EAFNOSUPPORT (Address family not supported by protocol)',
    "another namespace": "12<x> 1795261482.873624 setns(3<net:[4026531840]>, CLONE_NEWNET) = -1 EPERM (Operation not permitted)",
    "a ring": "12<x> 1795261113.698766 io_uring_setup(256, {flags=0x10000 /* IORING_SETUP_??? */, sq_thread_cpu=0, sq_off={head=0}}) = 6<anon_inode:[io_uring]>",
}  # fmt: skip
TRIED = [
    ["inet", "192.0.2.1", 443],
    ["inet", "198.51.100.1", 53],
    ["inet", "198.51.100.2", 53],
    ["inet", "203.0.113.53", 53],
    ["inet6", "2001:db8::1", 443],
    ["unix", "/run/x", 0],
]


def calls(*lines: str) -> list[Call]:
    return list(read_lines(iter([line.encode() + b"\n" for line in lines])))


def attempts(*lines: str) -> list[Attempt]:
    return find_attempts(calls(*lines))


def canary_attempts(pid: int = 90) -> list[Attempt]:
    return [Attempt("python", pid, "connect", family, "tcp", address, port, 2_000_000 + port) for family, address, port in TRIED]


def result(mode: str, *, failed: str = "", journey: int = 0) -> dict[str, Any]:
    """What a chamber returns when all is well, but for what is asked otherwise."""
    quiet = {"leaving_packets": 0, "outer_packets": 0, "kernel_icmpv6_packets": 1, "unroutable": 0}
    seen = {**quiet, "unroutable": 5} if mode == "no-route" else {**quiet, "leaving_packets": 6, "outer_packets": 6}
    return {
        "phases": [{"name": name, "started_micros": 1, "milliseconds": 2, "ok": name != failed, "detail": ""} for name in PHASES],
        "canary": {"tried": TRIED, "io_uring_denied": True, "untraced_denied": True, "pids": [90], "started_micros": 2_000_000},
        "counters": {"journey": {**quiet, "leaving_packets": journey, "outer_packets": journey}, "control": seen},
    }


def mode_entry(mode: str, *more: Attempt, starts: Sequence[int] = (1000, 1010, 990), **changes: Any) -> dict[str, Any]:
    trace = {"sha256": "0" * 64, "size_bytes": 1, "folder": FOLDER}
    return with_starts(mode_document(mode, result(mode, **changes), [*more, *canary_attempts()], trace), starts, Counters())


def report(*modes: dict[str, Any]) -> dict[str, Any]:
    bundle = {"name": "embedded", "version": "1", "sequence": 1, "manifest_sha256": "0" * 64}
    return make_report(
        modes or [mode_entry(mode) for mode in ("no-route", "refuse", "drop")],
        tool={"name": "t", "version": "1"}, bundles={"install": bundle, "upgrade": {**bundle, "sequence": 2}}, host={"cpus": 2}, made_at="2026-11-21T12:00:00Z", seconds=3,
    )  # fmt: skip

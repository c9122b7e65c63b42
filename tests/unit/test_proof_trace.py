"""What the recorder wrote is read strictly: nothing that could be an attempt is lost, nothing that the traced program chose is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.proof.attempts import find_attempts
from appliance.proof.trace import MAX_LINE_BYTES, TraceUnreadableError, read_lines
from tests.unit.proof_samples import INNER, OUTER, attempts, calls

START = '12<x> 1795261482.100000 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16'


@pytest.mark.parametrize("line", INNER)
def test_what_stays_in_the_box_is_no_attempt(line: str) -> None:
    assert attempts(line) == []


@pytest.mark.parametrize("way", OUTER)
def test_every_way_out_is_an_attempt(way: str) -> None:
    (found,) = attempts(OUTER[way])
    assert found.pid == 12
    assert found.calls == 1


def test_an_attempt_says_who_how_where_and_when() -> None:
    (found,) = attempts(OUTER["udp"])
    assert (found.process, found.call, found.family, found.protocol, found.address, found.port, found.time_micros) == (
        "dig", "sendto", "inet", "udp", "198.51.100.1", 53, 1795261482873296,
    )  # fmt: skip


def test_repeated_calls_are_one_distinct_attempt() -> None:
    (found,) = attempts(OUTER["tcp"], *INNER, OUTER["tcp"], OUTER["tcp"])
    assert found.calls == 3


def test_only_the_outer_one_of_many_messages_counts() -> None:
    (found,) = attempts(OUTER["messages"])
    assert found.address == "192.0.2.2"


def test_a_call_that_was_interrupted_in_the_log_is_one_call() -> None:
    (call,) = calls(
        START + " <unfinished ...>",
        INNER[0].replace("10<python>", "13<y>"),
        "12<x> 1795261482.200000 <... connect resumed>) = -1 ETIMEDOUT (Connection timed out)",
    )[1:]
    assert (call.name, call.error, call.time_micros) == ("connect", "ETIMEDOUT", 1795261482100000)
    assert len(attempts(START + " <unfinished ...>", "12<x> 1795261482.200000 <... connect resumed>) = 0")) == 1


@pytest.mark.parametrize(
    "end",
    [
        [],
        ["12<x> 1795261482.2 +++ killed by SIGKILL +++".replace(".2 ", ".200000 ")],
        ["12<x> 1795261482.200000 <... connect resumed> <unfinished ...>) = ?"],
    ],
)
def test_a_call_that_never_returned_is_an_attempt_all_the_same(end: list[str]) -> None:
    assert len(attempts(START + " <unfinished ...>", *end)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "12<x> 1795261482.100000 execve(",
        "[ Process PID=12 runs in 32 bit mode. ]",
        START,
        "12<x> 1795261482.200000 <... connect resumed>) = 0",
        "strace: Process 12 detached",
        "12<x> 1795261482.100000 sendmmsg(3<UDP:[114967]>, [...], 3, 0) = 3",
        "12<x> 1795261482.100000 sendmmsg(3<UDP:[114967]>, 0x7ffd3e0, 3, 0) = 3",
        "12<x> 1795261482.100000 sendmsg(3<UDP:[1]>, {msg_name=0x7ffd3e0, msg_namelen=16}, 0) = 3",
        "12<x> 1795261482.100000 sendmmsg(3<UDP:[1]>, [{msg_hdr={msg_name=NULL, msg_namelen=0}}, ...], 3, 0) = 3",
        "12<x> 1795261482.100000 connect(3<TCP:[1]>, 0x7ffd3e0, 16) = 0",
        '12<x> 1795261482.100000 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("999.0.2.1")}, 16) = 0',
        "12<x> 1795261482.100000 connect(3<TCP:[1]>, {sa_family=AF_UNIX, sun_path=0x77}, 16) = 0",
    ],
)  # fmt: skip
def test_what_is_not_understood_makes_the_trace_worthless(line: str) -> None:
    with pytest.raises(TraceUnreadableError):
        attempts(line)


def test_a_line_that_was_cut_off_or_never_ends_is_refused() -> None:
    for data in (OUTER["tcp"].encode(), b"1" * (MAX_LINE_BYTES + 5) + b"\n"):
        with pytest.raises(TraceUnreadableError):
            list(read_lines(iter([data])))


@pytest.mark.parametrize(
    "path",
    [r"/run/a\"}, 16) = 0", r"/run/x}, {sa_family=AF_INET, sin_port=htons(1), sin_addr=inet_addr(\"127.0.0.1\")}", r"/run/x\n12<x> 1.000000 +++ exited with 0 +++", "/run/x <unfinished ...>"],
)  # fmt: skip
def test_a_path_cannot_pose_as_something_else(path: str) -> None:
    line = (
        f'12<x> 1795261482.100000 connect(4<UNIX-STREAM:[1]>, {{sa_family=AF_UNIX, sun_path="{path}"}}, 110) = -1 ENOENT (No such file or directory)'
    )
    (found,) = attempts(line)
    assert found.family == "unix"
    assert found.address.startswith("/run/")
    assert "\n" not in found.address


@pytest.mark.parametrize("name", ["a b", "<python>", "x> 1.0 y(", "+++ exited", "\x1b[2J"])
def test_a_process_cannot_hide_behind_its_name(name: str) -> None:
    (found,) = attempts(OUTER["tcp"].replace("<curl>", f"<{name}>"))
    assert found.address == "192.0.2.1"
    assert "\x1b" not in found.process


@given(
    st.lists(
        st.sampled_from([*INNER, *OUTER.values(), START + " <unfinished ...>", "12<x> 1795261482.200000 <... connect resumed>) = 0"]), max_size=8
    ),
    st.data(),
)
def test_no_damage_makes_an_attempt_vanish_unnoticed(lines: list[str], data: st.DataObject) -> None:
    """A line cut anywhere is refused or still an attempt; never silence."""
    victim = data.draw(st.sampled_from(sorted(OUTER.values())))
    cut = data.draw(st.integers(1, len(victim) - 1))
    text = [*lines, victim[:cut].ljust(1)]
    try:
        found = find_attempts(read_lines(iter([line.encode() + b"\n" for line in text])))
    except TraceUnreadableError:
        return
    assert any(attempt.pid == 12 for attempt in found)

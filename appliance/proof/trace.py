"""Reads what ``strace -f -ttt -Y -yy -s 0`` wrote: lines into calls. Pure; strict; bounded.

Invariants:

1. every line is understood or refused: what cannot be read makes the whole trace worthless (``TraceUnreadableError``), never a silent gap;
2. text that the traced program chose (its name, paths of sockets) stands in angle brackets or quotes, and is never taken for anything else;
3. a call that was interrupted in the log (``<unfinished ...>``) is joined with its end; one that never ended is a call as well;
4. size, number and length of lines are bounded before they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_TRACE_BYTES: Final = 512 * 2**20
MAX_LINE_BYTES: Final = 2**20  # sendmmsg to 1024 addresses
MAX_OPEN_CALLS: Final = 100_000
RECORDED: Final = ("connect", "sendto", "sendmsg", "sendmmsg", "bind", "socket", "setns", "io_uring_setup", "pidfd_getfd")

_LINE: Final = re.compile(r"(?P<pid>[0-9]{1,10})(?:<(?P<name>.{0,80}?)>)? +(?P<seconds>[0-9]{9,11})\.(?P<micros>[0-9]{6}) (?P<rest>.*)")
_ENDED: Final = re.compile(
    r"\+\+\+ (exited with [0-9]+|killed by SIG[A-Z0-9_+]+( \(core dumped\))?|superseded by execve in pid [0-9]+(<.{0,80}>)?) \+\+\+"
)
_RESUMED: Final = re.compile(r"<\.\.\. (?P<name>[a-z0-9_]+|\?\?\?\??) resumed>(?P<rest>.*)")
_CALL: Final = re.compile(r"(?P<name>[a-z0-9_]+)\((?P<rest>.*)")
_GONE: Final = re.compile(r"\?{3,4}\((?: <unfinished \.\.\.>)?(?:\) += \?)?")  # a thread that died before its call was known to have begun
_QUOTED: Final = re.compile(r'\\.|"(?:[^"\\]|\\.)*"')
_UNFINISHED: Final = " <unfinished ...>"
_LEFT: Final = re.compile(r" <unfinished \.\.\.>(?:\)? += \?)?$")
_RESULT: Final = re.compile(
    r"\) += (?P<result>\?|-?[0-9]+|0x[0-9a-f]+)(?:<[^<>]*>+)?(?: (?P<error>E[A-Z0-9]+|ERESTART[A-Z_]*) \([^()]*\))?(?: \([^()]*\))?$"
)


class TraceUnreadableError(Exception):
    """The trace has a line that is not understood, or is too large: it proves nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    Attributes:
        pid: thread that made it.
        process: its name then; chosen by itself.
        time_micros: microseconds since 1970.
        name: of the call.
        arguments: as strace shows them, without the outer brackets.
        result: what it returned; None when it never returned or the thread was killed.
        error: symbolic error, empty when it succeeded.
    """

    pid: int
    process: str
    time_micros: int
    name: str
    arguments: str
    result: str | None = None
    error: str = ""


def read_trace(path: Path) -> Iterator[Call]:
    """The calls in ``path``, in the order in which they ended.

    Raises:
        TraceUnreadableError: see the invariants.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > MAX_TRACE_BYTES:
        raise TraceUnreadableError(f"{path.name} is larger than {MAX_TRACE_BYTES} bytes")
    with path.open("rb") as file:
        yield from read_lines(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""))


def read_lines(lines: Iterator[bytes]) -> Iterator[Call]:
    """The same from lines. Raises TraceUnreadableError."""
    waiting: dict[int, Call] = {}
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_BYTES or not line.endswith(b"\n"):
            raise TraceUnreadableError(f"line {number} is too long or cut off")
        call = _read_line(line[:-1].decode("latin-1"), number, waiting)
        if call is not None:
            yield call
        if len(waiting) > MAX_OPEN_CALLS:
            raise TraceUnreadableError(f"line {number}: too many calls at once")
    yield from waiting.values()


def _read_line(text: str, number: int, waiting: dict[int, Call]) -> Call | None:
    line = _LINE.fullmatch(text)
    if line is None:
        raise TraceUnreadableError(f"line {number} is not one of strace: {_printable(text)}")
    pid, rest = int(line["pid"]), line["rest"]
    if _ENDED.fullmatch(rest):
        return waiting.pop(pid, None)
    if _GONE.fullmatch(rest):
        return None
    resumed = _RESUMED.fullmatch(rest)
    if resumed is not None:
        return _resume(resumed, pid, number, waiting)
    match = _CALL.fullmatch(rest)
    if match is None or match["name"] not in RECORDED:
        raise TraceUnreadableError(f"line {number} is no call that was asked for: {_printable(rest)}")
    call = Call(pid, line["name"] or "", int(line["seconds"]) * 1_000_000 + int(line["micros"]), match["name"], match["rest"])
    if call.arguments.endswith(_UNFINISHED):
        if pid in waiting:
            raise TraceUnreadableError(f"line {number}: two calls of one thread at once")
        waiting[pid] = _with_arguments(call, call.arguments.removesuffix(_UNFINISHED))
        return None
    left = _LEFT.search(call.arguments)
    return _with_arguments(call, call.arguments[: left.start()]) if left else _finish(call, call.arguments, number)


def _resume(resumed: re.Match[str], pid: int, number: int, waiting: dict[int, Call]) -> Call | None:
    call = waiting.pop(pid, None)
    if call is None:
        if resumed["name"].startswith("?"):
            return None
        raise TraceUnreadableError(f"line {number} ends a call that never began")
    if resumed["name"] not in {call.name, "???", "????"}:
        raise TraceUnreadableError(f"line {number} ends {resumed['name']}, but {call.name} was under way")
    left = _LEFT.search(resumed["rest"])
    if left:
        return _with_arguments(call, call.arguments + resumed["rest"][: left.start()])
    return _finish(call, call.arguments + resumed["rest"], number)


def _finish(call: Call, text: str, number: int) -> Call:
    result = _RESULT.search(masked(text))
    if result is None:
        raise TraceUnreadableError(f"line {number} has no result: {_printable(text)}")
    value = None if result["result"] == "?" else result["result"]
    return Call(call.pid, call.process, call.time_micros, call.name, text[: result.start()], value, result["error"] or "")


def masked(text: str) -> str:
    """``text`` with everything inside of quotes blanked out, at the same places: what is left was written by strace, not by the traced program."""
    return _QUOTED.sub(lambda quoted: quoted[0] if quoted[0][0] == "\\" else f'"{"_" * (len(quoted[0]) - 2)}"', text)


def _with_arguments(call: Call, arguments: str) -> Call:
    return Call(call.pid, call.process, call.time_micros, call.name, arguments)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text[:120])

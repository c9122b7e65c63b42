"""Nothing gets out: no socket of the box leads to another machine, the switches were set when it started, and its guard has refused nothing."""

from pathlib import Path

from appliance.hub.models_toml import load_home_models
from appliance.kit.egress import Destination
from appliance.kit.offline import PLACES, SWITCHES, sealed_variables
from appliance.smoke.box import SmokeBox, SmokeFailure, expect, shown
from appliance.smoke.sockets import family_of, leading_out, variables

TITLE = "nothing gets out"
_COUNTER = "egress_refused_total"


def run(box: SmokeBox) -> str:
    """From outside of the process (``/proc``), then by its own count."""
    pid = box.on_this_machine().pid
    permitted = _permitted(box)
    members = family_of(pid)
    judged = sum(_judged(member, permitted, pid) for member in members)
    wrong = _missing_switches(variables(pid), box.home.path)
    expect(not wrong, f"the process was started without {', '.join(wrong)}", "start it with: appliance up, or with the unit of the site")
    refused = _refused(box)
    expect(refused == 0, f"{refused:.0f} attempts to get out were refused", "the log says where to (egress_refused); report it")
    return f"{judged} of {len(members)} processes seen, no socket leads out; {len(SWITCHES) + len(PLACES)} switches set at start; 0 attempts refused"


def _missing_switches(started_with: dict[str, str], home: Path) -> list[str]:
    """By name. The folders are compared as places: the home may be reached through a link."""
    missing = [name for name, value in SWITCHES.items() if started_with.get(name) != value]
    places = {name: value for name, value in sealed_variables(home).items() if name in PLACES}
    return missing + [name for name, value in places.items() if Path(started_with.get(name, "/")).resolve() != Path(value).resolve()]


def _judged(pid: int, permitted: set[tuple[str, int]], box: int) -> int:
    is_box = pid == box
    try:
        out = leading_out(pid, permitted)
    except (FileNotFoundError, ProcessLookupError):
        expect(not is_box, "the box has ended")
        return 0
    except PermissionError as error:
        if not is_box and _filters(pid) > _filters(box):
            return 1  # a worker that hides from its own user, under a filter of its own that refuses sockets
        raise SmokeFailure(f"process {pid} of the box cannot be looked at", "run it as the user of the box or as root") from error
    expect(not out, f"process {pid} of the box is connected: {shown(out)}", "find out what opened it; the log of the box may say")
    return 1


def _filters(pid: int) -> int:
    """How many seccomp filters a process has; 0 when it is gone or the kernel does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Seccomp_filters:")), 0)


def _permitted(box: SmokeBox) -> set[tuple[str, int]]:
    """What models.toml names, as addresses; names are looked up here, and only those."""
    import socket

    permitted: set[tuple[str, int]] = set()
    for spec in load_home_models(box.home.path).specs:
        if spec.endpoint:
            place = Destination.of_url(spec.endpoint)
            try:
                found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            except OSError:
                continue
            permitted |= {(str(entry[4][0]), place.port) for entry in found}
    return permitted


def _refused(box: SmokeBox) -> float:
    for line in box.answer("GET", "/metrics").text.splitlines():
        name, _, value = line.partition(" ")
        if name == _COUNTER:
            return float(value)
    raise SmokeFailure(f"/metrics has no {_COUNTER}: the process is not guarded", "start it with: appliance up, or with the unit of the site")

"""The one place where the running generation changes. Runs before *every* start of the service; idempotent; may be killed anywhere.

What is under way stands in ``pending.json``. States and steps:

1. nothing pending                      → ``current`` must name a finished generation; nothing is done
2. forward (install, upgrade), watched  → count the attempt; copy the databases when tables will change; ``current`` → target
3. forward, nobody watches              → the command and its guard are gone (killed, power cut): becomes 4, unless this is the first install
4. back (rollback, revert)              → take the data back with the newer code; ``current`` → target; mark as applied

Invariants:
a. ``current`` names a finished generation before and after every step.
b. A generation that was never confirmed runs only while somebody watches it; more than :data:`MAX_ATTEMPTS` starts make it a revert.
c. The data fit the generation that ``current`` names, or are in front of it (the code migrates forward at its start), never behind its back.
d. A full disk does not keep the box down: what ``current`` names starts, and the change stays pending.
e. Going back never needs the code of the release that is left, except for changing its own tables; if that fails, a revert puts the copy back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from appliance.bundle.site.data import Data, HomeData, plan
from appliance.bundle.site.durable import put_link
from appliance.bundle.site.history import read_history
from appliance.bundle.site.layout import Generation, Site
from appliance.bundle.site.locks import is_watched, switch_lock
from appliance.bundle.site.records import BACK, FORWARD, REFUSED, Pending, read_pending, read_settings, read_state, remove_pending, write_pending
from appliance.kit.errors import ApplianceError

MAX_ATTEMPTS: Final = 3
_SWITCHES: Final = ("upgrade", *BACK)  # an ``install`` leaves no other release
Observe = Callable[[str], None]
"""Called with the name of each step before it is done, so that tests can stop there."""


def unobserved(_step: str) -> None:
    """Nobody looks."""


def settle(site: Site, data: Data | None = None, *, observe: Observe = unobserved) -> Generation:
    """Bring ``current`` and the data to where the pending change wants them; returns the generation that is to run.

    Raises:
        ApplianceError: ``site_invalid`` (no finished generation to run), or why the data cannot be taken back.
    """
    with switch_lock(site):
        pending = read_pending(site)
        if pending is not None and _is_confirmed(site, pending):
            remove_pending(site)  # killed between the last two steps of confirming: it holds
            pending = None
        if pending is None or pending.verb == REFUSED:
            return _runnable(site)
        try:
            return _towards(site, pending, data or HomeData(site, read_settings(site)), observe)
        except ApplianceError as error:
            if error.code != "disk_full":
                raise
            return _runnable(site)


def _is_confirmed(site: Site, pending: Pending) -> bool:
    """Whether history and state have this change already, so that only the end of ``pending.json`` is missing."""
    state = read_state(site)
    if state.generation != pending.target or site.current() != site.generation(pending.target):
        return False
    try:
        return read_history(site, state).has(pending.operation, pending.verb)
    except ApplianceError:  # a damaged history is told by every command; it does not decide what runs
        return False


def _towards(site: Site, pending: Pending, data: Data, observe: Observe) -> Generation:
    if pending.verb in FORWARD and pending.origin and _is_to_go_back(site, pending):
        pending = reverted(pending, _why(site, pending))
        write_pending(site, pending)
    if pending.verb in FORWARD:
        return _forward(site, pending, data, observe)
    return _back(site, pending, data, observe)


def reverted(pending: Pending, reason: str) -> Pending:
    """The way back from ``pending``, which is on its way forward."""
    return replace(pending, verb="revert", origin=pending.target, target=pending.origin, attempts=0, reason=reason, applied=False, data="")


def _is_to_go_back(site: Site, pending: Pending) -> bool:
    return pending.attempts >= MAX_ATTEMPTS or not is_watched(site)


def _why(site: Site, pending: Pending) -> str:
    if is_watched(site):
        return f"{pending.target} was started {pending.attempts} times and did not stay up"
    return "the command that watched the change is gone"


def _forward(site: Site, pending: Pending, data: Data, observe: Observe) -> Generation:
    target = _finished(site, pending.target)
    origin = _finished(site, pending.origin) if pending.origin else None
    observe("settle: count the attempt")
    write_pending(site, replace(pending, attempts=pending.attempts + 1))
    steps = plan(origin, target)
    try:
        if steps.copies:
            observe("settle: copy the databases")
            data.copy_before(target, pending.operation)
        if steps.lowers and origin is not None:  # an older release, on purpose
            observe("settle: take the tables back")
            data.lower(origin, target.schema_heads)
    except ApplianceError as error:
        if origin is None:
            raise
        unchanged = replace(reverted(pending, f"before the start of {target.name}: {error.message}"), applied=True, data="nothing was changed")
        write_pending(site, unchanged)
        return origin  # ``current`` was not touched: the old release runs on
    _switch(site, target, observe)
    return target


def _back(site: Site, pending: Pending, data: Data, observe: Observe) -> Generation:
    target = _finished(site, pending.target)
    origin = site.generation(pending.origin)
    if not pending.applied:
        try:
            done = _take_back(site, pending, origin, target, data, observe)
        except ApplianceError as error:
            if pending.verb == "revert":
                raise
            write_pending(site, replace(pending, verb=REFUSED, reason=f"{error.code}: {error.message}"))
            return _runnable(site)  # the release that ran runs on
        _switch(site, target, observe)
        observe("settle: mark as applied")
        write_pending(site, replace(pending, applied=True, data=done))
    return target


def _take_back(site: Site, pending: Pending, origin: Generation, target: Generation, data: Data, observe: Observe) -> str:
    if pending.restore_data:
        observe("settle: put the copy back")
        data.restore(origin, pending.operation, _brought_up(site, origin))
        return "the copy from before the upgrade was put back; newer data were set aside"
    steps = plan(origin, target)
    done = "the tables are the same in both releases"
    if steps.lowers:
        try:
            if data.is_at(target.schema_heads):
                return done
            observe("settle: take the tables back")
            taken = data.lower(origin, target.schema_heads)
            done = f"tables taken back with all rows: {', '.join(taken)}" if taken else "the tables were not changed"
        except ApplianceError as error:
            if pending.verb != "revert":
                raise
            done = _put_back(pending, origin, data, error)
    return done


def _put_back(pending: Pending, origin: Generation, data: Data, error: ApplianceError) -> str:
    """No copy of this very change means that ``origin`` was never started: the copy comes before the first start."""
    try:
        data.restore(origin, pending.operation, pending.operation)
    except ApplianceError as missing:
        if missing.code != "not_found":
            raise
        return f"{origin.name} was not started, the data are as they were ({error.message})"
    return f"the copy from before the upgrade was put back, newer data were set aside ({error.message})"


def _brought_up(site: Site, generation: Generation) -> str:
    """The operation that brought ``generation`` up last: a copy that an earlier one made is not from before *this* use of it."""
    entries = [entry for entry in read_history(site, read_state(site)).entries if entry["to"] == generation.name and entry["verb"] in _SWITCHES]
    return str(entries[-1]["detail"].get("operation", "")) if entries else "never"


def _switch(site: Site, target: Generation, observe: Observe) -> None:
    observe("settle: switch")
    put_link(site.current_link, f"generations/{target.name}")


def _finished(site: Site, name: str) -> Generation:
    generation = site.generation(name)
    if not generation.is_complete:
        raise ApplianceError("site_invalid", f"generation {name} is not finished", hint="install its bundle again")
    return generation


def _runnable(site: Site) -> Generation:
    generation = site.current()
    if generation is None or not generation.is_complete:
        names = ", ".join(found.name for found in site.installed()) or "none"
        raise ApplianceError("site_invalid", f"there is no finished generation to run (installed: {names})", hint="appliance bundle rollback --to …")
    return generation

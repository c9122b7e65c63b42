"""What an operator asks of a site: install, upgrade, roll back, recover. Owns the order of steps; each step is another module's.

Every step may be the last one of a killed process: the box runs on (old or new), and the same command, given again, finishes.
"""

from __future__ import annotations

import os
import platform
import pwd
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from appliance.bundle.format.manifest import Target
from appliance.bundle.reader import BundleFile, Progress, open_bundle, verify_bundle
from appliance.bundle.site.account import named
from appliance.bundle.site.chunk_sources import chunk_sources
from appliance.bundle.site.confirm import site_root, write_tools
from appliance.bundle.site.data import HomeData, plan
from appliance.bundle.site.durable import put_link, read_file, remove_file, remove_tree
from appliance.bundle.site.environment import complete, make_environment
from appliance.bundle.site.guard import Guard, guard_detached, guard_in_process
from appliance.bundle.site.health import HealthCheck, check_syntax, wait_until_healthy
from appliance.bundle.site.history import read_history
from appliance.bundle.site.integrity import altered_files, check_whole, told
from appliance.bundle.site.layout import COMPLETE, Generation, Site, open_site
from appliance.bundle.site.locks import operation_lock, switch_lock
from appliance.bundle.site.process_service import ProcessService
from appliance.bundle.site.prune import KEEP, prune, remove_leftovers
from appliance.bundle.site.records import (
    BACK,
    FORWARD,
    Pending,
    Settings,
    State,
    now_seen,
    read_pending,
    read_settings,
    read_state,
    settings_or_none,
    write_pending,
    write_settings,
)
from appliance.bundle.site.service import check_service_name
from appliance.bundle.site.settle import Observe, reverted, settle, unobserved
from appliance.bundle.site.staging import check_space, unpack
from appliance.bundle.verify import Installed, Pin, Policy, VerifiedBundle
from appliance.kit.errors import ApplianceError

Say = Callable[[str], None]
DEFAULT_HOME: Final = Path("/var/lib/appliance")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an operation talks to. Tests pass their own.

    Attributes:
        say: progress in words.
        progress: called with the name of a long step, bytes done, bytes in all.
        observe: called with the name of every step before it is done.
        guard: carries a switch through; None for the one that fits the service.
    """

    say: Say = field(default=lambda _line: None)
    progress: Callable[[str, int, int], None] | None = None
    observe: Observe = unobserved
    guard: Guard | None = None

    def progress_of(self, what: str) -> Progress | None:
        """The progress of one step."""
        report = self.progress
        return None if report is None else lambda done, total: report(what, done, total)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to bring a bundle in.

    Attributes:
        pin: where trust starts on a bare site; an installed site has its own root, and the pin must agree with it.
        allow_older: go behind the newest release this site has had.
        allow_expired: accept an expired bundle or root.
        reason: why one of these is meant; needed then.
        start: False = files only, nobody is restarted or asked.
        check: what must hold before the change is confirmed.
        keep: finished generations that stay.
    """

    pin: Pin = field(default_factory=Pin)
    allow_older: bool = False
    allow_expired: bool = False
    reason: str = ""
    start: bool = True
    check: HealthCheck = field(default_factory=HealthCheck)
    keep: int = KEEP


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation did."""

    verb: str
    changed: bool
    generation: str
    previous: str = ""
    data: str = ""


def install(site_path: Path, file: Path, settings: Settings, wishes: Wishes, around: Surroundings | None = None) -> Done:
    """Make the site run the bundle: a first install, an upgrade, or nothing when it runs it already.

    Raises:
        ApplianceError: a verdict on the bundle (``bundle_*``, ``trust_invalid``), ``site_busy``, ``site_invalid``, ``disk_full``,
            ``install_failed``, ``upgrade_reverted``.
    """
    check_service_name(settings.service)
    if not Path(settings.home).is_absolute():
        raise ApplianceError("invalid_request", f"the home must be an absolute path, not {settings.home!r}", hint="--home /var/lib/appliance")
    named(settings.user)  # a name that does not exist is told before anything is written
    if settings.service.startswith("systemd:") and wishes.start and not Path("/run/systemd/system").is_dir():
        raise ApplianceError("invalid_request", "this host does not run systemd", hint="--service process, or --no-start and start the box yourself")
    around = around or Surroundings()
    with open_bundle(file) as bundle:
        bare = not site_path.exists()  # then no folder is made before the bundle is known to be one that may be installed
        verified = _verify(Site(site_path.absolute()), bundle, wishes, around) if bare else None
        return _bring_in(open_site(site_path, create=True), bundle, settings, wishes, around, verified)


def upgrade(site_path: Path, file: Path, wishes: Wishes, around: Surroundings | None = None) -> Done:
    """Bring an installed site to the bundle. Raises what :func:`install` raises, and ``not_found`` on a bare site."""
    site = open_site(site_path)
    with open_bundle(file) as bundle:
        return _bring_in(site, bundle, read_settings(site), wishes, around or Surroundings())


def rollback(
    site_path: Path, target: str = "", *, restore_data: bool = False, reason: str = "", start: bool = True, check: HealthCheck | None = None,
    around: Surroundings | None = None,
) -> Done:  # fmt: skip
    """Go back to the generation before this one, or to ``target``. Always allowed, and written into the history.

    Raises:
        ApplianceError: ``not_found``, ``conflict`` (a change of the tables has no way back; nothing was changed), ``site_busy``, ``install_failed``.
    """
    site, around = open_site(site_path), around or Surroundings()
    with operation_lock(site) as lock:
        settings = read_settings(site)
        read_history(site, read_state(site))
        _finish_old(site, lock, settings, around)
        state, current = read_state(site), site.current()
        wanted = target or _release_before(site, state)
        if not wanted or current is None:
            raise ApplianceError("not_found", "there is no generation to go back to", hint="appliance bundle status lists the installed ones; rollback --to NAME goes to any of them")
        generation = site.generation(wanted)
        if not generation.is_complete:
            raise ApplianceError("not_found", f"generation {wanted} is not installed", hint="appliance bundle status lists the installed ones")
        if generation.name == current.name:
            return Done("rollback", changed=False, generation=wanted, previous=state.previous)
        check_whole(generation)
        _check_way_back(site, settings, current, generation, restore_data=restore_data)
        write_tools(site)
        pending = Pending(secrets.token_hex(8), "rollback", current.name, wanted, actor=actor(), reason=reason, restore_data=restore_data)
        _switch(site, lock, settings, pending, check or HealthCheck(), around, start=start)
        return Done("rollback", changed=True, generation=wanted, previous=current.name, data=_last_data(site))


def _release_before(site: Site, state: State) -> str:
    """Where a rollback without a name leads: never forward again to the release that a rollback has just left."""
    history, current = read_history(site, state), site.current()
    if current is None or not history.entries or history.entries[-1]["verb"] not in BACK:
        return state.previous
    older = [generation for generation in site.installed() if generation.is_complete and generation.sequence < current.sequence]
    return max(older, key=lambda generation: generation.sequence).name if older else ""


def recover(site_path: Path, around: Surroundings | None = None) -> Done:
    """After a killed guard or a power cut: finish the way back, or start the box that does not run.

    Raises:
        ApplianceError: ``site_busy``, ``install_failed``, ``not_found``.
    """
    site, around = open_site(site_path), around or Surroundings()
    with operation_lock(site) as lock:
        settings = read_settings(site)
        remove_leftovers(site)
        changed = _finish_old(site, lock, settings, around)
        current = site.current()
        if current is not None and settings.service == "process":
            changed = _start_stopped(site, settings, around) or changed
        return Done("recover", changed=changed, generation=current.name if current else "", previous=read_state(site).previous)


def _start_stopped(site: Site, settings: Settings, around: Surroundings) -> bool:
    """Start the box of a site without systemd when it does not run; whether that was needed."""
    service = ProcessService(settings, site.path)
    if service.is_running():
        return False
    around.say("the box does not run; starting it")
    service.restart(lambda: settle(site))
    problem = wait_until_healthy(settings, site.current() or site.generation(""), service, HealthCheck(), lambda: False)
    if problem:
        raise ApplianceError("install_failed", f"the box was started but is not ready: {problem}", hint="appliance doctor says what to do")
    return True


def actor() -> str:
    """Who asks: the person behind sudo when there is one."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind[:64]} (as {name})" if behind and behind.isprintable() else name


def this_target() -> Target:
    """The platform of this machine."""
    return Target(sys.platform, platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}")


def _bring_in(
    site: Site, bundle: BundleFile, settings: Settings, wishes: Wishes, around: Surroundings, verified: VerifiedBundle | None = None
) -> Done:
    check_syntax(wishes.check.command)
    with operation_lock(site) as lock:
        remove_leftovers(site)
        around.observe("verify")
        pending, state = read_pending(site), read_state(site)
        read_history(site, state)
        if verified is None or state.name:
            verified = _verify(site, bundle, wishes, around)
        manifest = verified.manifest
        target, current = site.generation(manifest.generation), site.current()
        _open_for_repair(target, around)
        if pending is None and current is not None and current.name == target.name == state.generation and target.is_complete:
            _keep_settings(site, settings)
            return Done("install", changed=False, generation=target.name, previous=state.previous)
        if pending is not None and not (pending.verb in FORWARD and pending.target == target.name):
            _finish_old(site, lock, read_settings(site), around)
            current = site.current()
        if not target.is_complete:
            _stage(site, bundle, verified, target, settings, around)
        around.observe("settings")
        _keep_settings(site, settings)
        write_tools(site)
        origin = state.generation if state.generation and state.generation != target.name else ""
        verb = "upgrade" if origin else "install"
        change = Pending(secrets.token_hex(8), verb, origin, target.name, actor=actor(), reason=wishes.reason, overrides=list(verified.overrides))
        _switch(site, lock, settings, change, wishes.check, around, start=wishes.start)
        around.observe("prune")
        prune(site, wishes.keep)
        return Done(verb, changed=True, generation=target.name, previous=origin)


def _open_for_repair(target: Generation, around: Surroundings) -> None:
    """A finished generation that was altered is unfinished again: what is wrong in it is replaced from the bundle, then it is switched to."""
    found = altered_files(target) if target.is_complete else []
    if not found:
        return
    around.say(f"{target.name} is not what was installed any more and is repaired: {told(found)}; tell your security officer")
    around.observe("repair")
    remove_file(target.path / COMPLETE)
    if any(path.startswith("venv/") for path in found):
        remove_tree(target.path / "venv")


def _verify(site: Site, bundle: BundleFile, wishes: Wishes, around: Surroundings) -> VerifiedBundle:
    if (wishes.allow_older or wishes.allow_expired) and not wishes.reason.strip():
        raise ApplianceError("invalid_request", "an override needs a reason", hint="add --reason TEXT; it is written into the history")
    state, root = read_state(site), site_root(site)
    pinned = (read_file(site.fingerprint_file, 4096) or b"").decode(errors="replace").strip().removeprefix("sha256:")
    pin = Pin(root or wishes.pin.root, wishes.pin.first_fingerprint or pinned)
    if pin.root is None and not pin.first_fingerprint:
        raise ApplianceError("trust_invalid", "a first install needs the root of trust", hint="--fingerprint sha256:… from paper, or --root FILE")
    installed = Installed(state.name, state.sequence, state.manifest_sha256) if state.name else None
    policy = Policy(now_seen(state), this_target(), installed, allow_older=wishes.allow_older, allow_expired=wishes.allow_expired)
    return verify_bundle(bundle, pin, policy, progress=around.progress_of("verify"))


def _stage(site: Site, bundle: BundleFile, verified: VerifiedBundle, target: Generation, settings: Settings, around: Surroundings) -> None:
    manifest, heads = verified.manifest, bundle.heads()
    with chunk_sources(bundle, heads.end, verified, site.installed()) as sources:
        check_space(target, manifest, sources)
        around.observe("unpack")
        unpack(target, manifest, heads, sources, around.progress_of("unpack"))
    around.observe("environment")
    make_environment(site, target, settings.home, around.say, around.observe)
    around.observe("complete")
    complete(target, manifest.digest)


def _switch(site: Site, lock: int, settings: Settings, change: Pending, check: HealthCheck, around: Surroundings, *, start: bool) -> None:
    if not start:
        settings = replace(settings, service="none")
    around.observe("pending")
    with switch_lock(site):
        write_pending(site, change)
        if change.verb == "install" and site.current() is None:  # so that the unit has something to start
            put_link(site.current_link, f"generations/{change.target}")
    around.observe("guard")
    _make_home(settings)
    _guard(settings, around, start=start)(site, lock, check, around.say)


def _guard(settings: Settings, around: Surroundings, *, start: bool) -> Guard:
    if around.guard is not None:
        return around.guard
    if start and settings.service != "none":
        return guard_detached
    return lambda site, lock, check, say: guard_in_process(site, lock, check, say, settings=settings, observe=around.observe)


def _finish_old(site: Site, lock: int, settings: Settings, around: Surroundings) -> bool:
    """Whoever began the pending change is gone (we hold the lock): take it back, or finish the way back."""
    pending = read_pending(site)
    if pending is None:
        return False
    if pending.verb in FORWARD and pending.origin:
        pending = reverted(pending, "the command that watched the change is gone")
    around.say(f"finishing what was interrupted: {pending.verb} to {pending.target}")
    try:
        _switch(site, lock, settings, pending, HealthCheck(), around, start=True)
    except ApplianceError as error:
        if error.code not in {"upgrade_reverted", "conflict"}:
            raise
    return True


def _check_way_back(site: Site, settings: Settings, current: Generation, target: Generation, *, restore_data: bool) -> None:
    """Ask the newer code before anything is stopped. Raises ``conflict``."""
    data = HomeData(site, settings)
    if plan(current, target).lowers and not restore_data and not data.is_at(target.schema_heads):
        data.lower(current, target.schema_heads, check=True)


def _make_home(settings: Settings) -> None:
    home = Path(settings.home)
    account = named(settings.user)
    if home.is_dir():
        return
    home.mkdir(mode=0o700, parents=True)
    if account:
        os.chown(home, account["user"], account["group"])


def _keep_settings(site: Site, settings: Settings) -> None:
    if settings_or_none(site) != settings:
        write_settings(site, settings)


def _last_data(site: Site) -> str:
    entries = read_history(site, read_state(site)).entries
    last: dict[str, Any] = dict(entries[-1]["detail"]) if entries else {}
    return str(last.get("data", ""))

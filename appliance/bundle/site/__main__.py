"""The command line of the installer file: ``python3 appliance-install.pyz VERB …``. Owns arguments and output; every verb is one call of the library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.bundle.site import guard, inspection, operations
from appliance.bundle.site.first_contact import zipapp_bytes
from appliance.bundle.site.health import HEALTH_SECONDS, HealthCheck
from appliance.bundle.site.layout import DEFAULT_SITE, open_site
from appliance.bundle.site.locks import operation_lock
from appliance.bundle.site.pinning import pin_of
from appliance.bundle.site.progress import Talk
from appliance.bundle.site.prune import KEEP, prune
from appliance.bundle.site.records import Settings
from appliance.bundle.site.settle import settle
from appliance.bundle.verify import Policy
from appliance.kit.errors import ApplianceError

_EXAMPLES: Final = """examples:
  python3 appliance-install.pyz verify embedded.bundle --fingerprint sha256:…
  python3 appliance-install.pyz install embedded.bundle --fingerprint sha256:… --service systemd:appliance
  python3 appliance-install.pyz rollback
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status comes from the table of errors."""
    options = _parser().parse_args(arguments)
    zipapp_bytes()  # while it is the file that was started
    try:
        return int(_VERBS[options.verb](options) or 0)
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})\nhint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    except KeyboardInterrupt:
        print("stopped; repeat the command to go on", file=sys.stderr)
        return 130


def _install(options: argparse.Namespace) -> None:
    settings = Settings(str(options.home), options.user, options.service, options.host, options.port)
    _done(options, operations.install(options.site, options.file, settings, _wishes(options), _around(options)))


def _upgrade(options: argparse.Namespace) -> None:
    _done(options, operations.upgrade(options.site, options.file, _wishes(options), _around(options)))


def _rollback(options: argparse.Namespace) -> None:
    done = operations.rollback(
        options.site, options.to, restore_data=options.restore_data, reason=options.reason, start=not options.no_start, check=_check(options),
        around=_around(options),
    )  # fmt: skip
    _done(options, done)


def _recover(options: argparse.Namespace) -> None:
    _done(options, operations.recover(options.site, _around(options)))


def _settle(options: argparse.Namespace) -> None:
    print(settle(open_site(options.site)).name)


def _prune(options: argparse.Namespace) -> None:
    site = open_site(options.site)
    with operation_lock(site):
        removed = prune(site, options.keep)
    print(json.dumps({"removed": removed}) if options.json else "\n".join(removed))


def _status(options: argparse.Namespace) -> None:
    found = inspection.status(open_site(options.site))
    print(json.dumps(found) if options.json else inspection.status_text(found))


def _history(options: argparse.Namespace) -> None:
    entries = inspection.history(open_site(options.site))
    print(json.dumps(entries) if options.json else inspection.history_text(entries))


def _verify(options: argparse.Namespace) -> None:
    with open_bundle(options.file) as bundle:
        talk = Talk(quiet=options.json)
        policy = Policy(inspection.now(), None, allow_expired=options.allow_expired)
        found = verify_bundle(
            bundle, pin_of(options.fingerprint, options.root), policy, progress=lambda done, total: talk.progress("verify", done, total)
        )
    manifest = found.manifest
    facts = {
        "name": manifest.name,
        "version": manifest.version,
        "sequence": manifest.sequence,
        "manifest_sha256": manifest.digest,
        "signers": found.signers,
    }
    print(json.dumps(facts) if options.json else f"{manifest.name} {manifest.version} is whole and signed by {len(found.signers)} trusted keys")


def _guard(options: argparse.Namespace) -> int:
    return guard.serve(open_site(options.site), options.lock, _check(options))


def _done(options: argparse.Namespace, done: operations.Done) -> None:
    print(json.dumps(asdict(done)) if options.json else f"{done.verb}: {done.generation}{'' if done.changed else ' (nothing to do)'}")


def _wishes(options: argparse.Namespace) -> operations.Wishes:
    return operations.Wishes(
        pin_of(options.fingerprint, options.root), options.allow_older, options.allow_expired, options.reason, not options.no_start, _check(options),
        options.keep,
    )  # fmt: skip


def _check(options: argparse.Namespace) -> HealthCheck:
    return HealthCheck(options.health_seconds, options.check_command)


def _around(options: argparse.Namespace) -> operations.Surroundings:
    talk = Talk(quiet=False)
    return operations.Surroundings(say=talk.say, progress=None if options.json else talk.progress)


_VERBS: Final[dict[str, Callable[[argparse.Namespace], int | None]]] = {
    "verify": _verify, "install": _install, "upgrade": _upgrade, "rollback": _rollback, "history": _history, "status": _status, "settle": _settle,
    "recover": _recover, "prune": _prune, "guard": _guard,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="appliance-install.pyz", description="Verify and install signed bundles with a bare python3.", epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    site = _options(lambda group: group.add_argument("--site", type=Path, default=DEFAULT_SITE, help="folder of the site (default %(default)s)"))
    machine = _options(lambda group: group.add_argument("--json", action="store_true", help="print the result as JSON"))
    trust, start = _options(_trust_options), _options(_start_options)
    file = _options(lambda group: group.add_argument("file", type=Path, help="the bundle"))
    install = verbs.add_parser("install", parents=[file, site, trust, start, machine], help="make the site run a bundle")
    install.add_argument("--home", type=Path, default=operations.DEFAULT_HOME, help="data of the box (default %(default)s)")
    install.add_argument("--user", default="", help="who runs the box (default: who installs)")
    install.add_argument("--service", default="none", help="systemd:UNIT, process or none")
    install.add_argument("--host", default="127.0.0.1")
    install.add_argument("--port", type=int, default=8080)
    verbs.add_parser("upgrade", parents=[file, site, trust, start, machine], help="bring an installed site to a bundle")
    verbs.add_parser("verify", parents=[file, trust, machine], help="check every byte and signature; changes nothing")
    back = verbs.add_parser("rollback", parents=[site, start, machine], help="go back to the release before this one")
    back.add_argument("--to", default="", metavar="GENERATION")
    back.add_argument("--restore-data", action="store_true", help="put back the data from before the upgrade; newer data are set aside")
    for name, what in (("history", "what was done here"), ("status", "what is installed"), ("recover", "finish what was interrupted")):
        verbs.add_parser(name, parents=[site, machine], help=what)
    verbs.add_parser("settle", parents=[site], help="before every start of the box: bring the site to where a pending change wants it")
    verbs.add_parser("prune", parents=[site, machine], help="remove old generations").add_argument("--keep", type=int, default=KEEP)
    inner = verbs.add_parser("guard", parents=[site, start])
    inner.add_argument("--lock", type=int, required=True)
    return parser


def _options(add: Callable[[argparse.ArgumentParser], object]) -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    add(group)
    return group


def _trust_options(group: argparse.ArgumentParser) -> None:
    group.add_argument("--fingerprint", "--root-fingerprint", default="", help="sha256:… of the first root of trust, from paper")
    group.add_argument("--root", type=Path, help="file with the root of trust (root.dsse.json)")
    group.add_argument("--allow-older", action="store_true", help="accept an older release than this site has had")
    group.add_argument("--allow-expired", action="store_true", help="accept an expired bundle or root")


def _start_options(group: argparse.ArgumentParser) -> None:
    group.add_argument("--no-start", action="store_true", help="files only: nobody is restarted or asked")
    group.add_argument("--health-seconds", type=float, default=HEALTH_SECONDS, help="how long the box may take to be ready")
    group.add_argument("--check-command", default="", help="one more check before the change is confirmed")
    group.add_argument("--reason", default="", help="written into the history")
    group.add_argument("--keep", type=int, default=KEEP, help="finished generations that stay")


if __name__ == "__main__":
    sys.exit(main())

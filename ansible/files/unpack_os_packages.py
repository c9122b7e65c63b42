"""Verify a bundle by the rules of this host's site and write its OS packages into a folder, which must not exist.

Runs on the control station and on the host, with the standard library and the installer's own code. Verification and reading share one
descriptor, so the file cannot be exchanged in between; every package is hashed again on its way to the disk. What a delta leaves out is
taken from the generations of the site. A bundle that the site would refuse is refused here, before a package of it is installed.
"""

# ruff: noqa: INP001 - a script that Ansible carries, not a module
from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

KIND: Final = "os-packages"


def main() -> int:
    """Exit status 0, or that of the refusal."""
    parser = argparse.ArgumentParser(description="Verify a bundle and write its OS packages into a folder.")
    parser.add_argument("installer", help="appliance-install.pyz, whose code verifies")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("fingerprint", help="sha256:… of the first root of trust")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", type=Path, help="the site whose rules count; none on a station")
    parser.add_argument("--allow-older", action="store_true")
    parser.add_argument("--allow-expired", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, options.installer)
    from appliance.kit.errors import ApplianceError

    try:
        _unpack(options)
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})\nhint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return 0


def _unpack(options: argparse.Namespace) -> None:
    from appliance.bundle.reader import open_bundle, verify_bundle
    from appliance.bundle.site.chunk_sources import chunk_sources
    from appliance.bundle.site.confirm import site_root
    from appliance.bundle.site.layout import Site
    from appliance.bundle.site.operations import this_target
    from appliance.bundle.site.records import now_seen, read_state
    from appliance.bundle.verify import Installed, Pin, Policy

    overrides = {"allow_older": options.allow_older, "allow_expired": options.allow_expired}
    fingerprint = options.fingerprint.removeprefix("sha256:")
    if options.site is None:
        pin, policy, generations = Pin(first_fingerprint=fingerprint), Policy(datetime.now(UTC), **overrides), []
    else:
        site = Site(options.site)
        state = read_state(site)
        installed = Installed(state.name, state.sequence, state.manifest_sha256) if state.name else None
        pin, generations = Pin(site_root(site), fingerprint), site.installed()
        policy = Policy(now_seen(state), this_target(), installed, **overrides)
    with open_bundle(options.bundle) as file:
        verified = verify_bundle(file, pin, policy)
        making = options.folder.with_name(f".{options.folder.name}.making")
        making.mkdir(mode=0o700)
        with chunk_sources(file, file.heads().end, verified, generations) as sources:
            for component in verified.manifest.components:
                for entry in component.files if component.kind == KIND else ():
                    with (making / Path(entry.path).name).open("xb") as package:
                        for chunk in entry.chunks:
                            package.write(sources.read(chunk))
        making.rename(options.folder)


if __name__ == "__main__":
    sys.exit(main())

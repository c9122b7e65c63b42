"""``unpack_os_packages.py INSTALLER BUNDLE FINGERPRINT FOLDER [SITE]``: verify a bundle and write its OS packages into FOLDER, which must not exist.

Runs on the control station and on the host, with the standard library and the installer's own code. Verification and reading share one
descriptor, so the file cannot be exchanged in between; every package is hashed again on its way to the disk. What a delta leaves out is
taken from the generations of SITE.
"""

# ruff: noqa: INP001 - a script that Ansible carries, not a module
from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

KIND: Final = "os-packages"


def main(installer: str, bundle: str, fingerprint: str, folder: str, site: str = "") -> int:
    """Exit status 0, or that of the refusal."""
    sys.path.insert(0, installer)
    from appliance.kit.errors import ApplianceError

    try:
        _unpack(Path(bundle), fingerprint.removeprefix("sha256:"), Path(folder), site)
    except ApplianceError as error:
        print(f"error: {error.message} ({error.code})\nhint: {error.hint}", file=sys.stderr)
        return error.outcome.exit
    return 0


def _unpack(bundle: Path, fingerprint: str, folder: Path, site: str) -> None:
    from appliance.bundle.reader import open_bundle, verify_bundle
    from appliance.bundle.site.chunk_sources import chunk_sources
    from appliance.bundle.site.layout import Site
    from appliance.bundle.verify import Pin, Policy

    generations = Site(Path(site)).installed() if site else []
    with open_bundle(bundle) as file:
        verified = verify_bundle(file, Pin(first_fingerprint=fingerprint), Policy(now=datetime.now(UTC)))
        making = folder.with_name(f".{folder.name}.making")
        making.mkdir(mode=0o700)
        with chunk_sources(file, file.heads().end, verified, generations) as sources:
            for component in verified.manifest.components:
                for entry in component.files if component.kind == KIND else ():
                    with (making / Path(entry.path).name).open("xb") as package:
                        for chunk in entry.chunks:
                            package.write(sources.read(chunk))
        making.rename(folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

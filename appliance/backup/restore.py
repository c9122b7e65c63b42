"""Makes a home out of a backup. The home appears whole or not at all; an existing one is never touched, at most moved aside on request.

Owns: the way into place, and whose the new home is. Root gives it to the user of the box, never keeps it: a home of root's would be served by root.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.audit.durable_files import sync_folder
from appliance.audit.signing import PUBLIC_NAME, load_public_key
from appliance.audit.verify import verify_log
from appliance.backup.index import Index
from appliance.backup.unpacking import unpack
from appliance.bundle.site.account import named
from appliance.bundle.site.durable import sync_file_system
from appliance.bundle.site.layout import Site
from appliance.bundle.site.records import settings_or_none
from appliance.home import Home
from appliance.kit.errors import ApplianceError

SITE_VARIABLE: Final = "APPLIANCE_SITE"


@dataclass(frozen=True, slots=True)
class Restored:
    """``aside``: where the home that stood there is now; None when there was none. ``audit_records``: how many hold in the restored log."""

    home: Path
    aside: Path | None
    audit_records: int
    index: Index


def restore_backup(archive: Path, home: Home, *, public: Ed25519PublicKey | None = None, replace: bool = False) -> Restored:
    """Unpack ``archive`` as ``home``.

    Args:
        archive: the backup file.
        home: where; absent or empty, unless ``replace``.
        public: audit key of the box, noted down elsewhere; None trusts the one in the backup.
        replace: move a home that is there aside (it is not deleted).

    Raises:
        ApplianceError: ``conflict`` (the home is in use or not empty), ``bundle_…``, ``audit_broken``, ``disk_full``. Nothing is in place then.
    """
    target = home.path
    if home.running() is not None:
        raise ApplianceError("conflict", f"a box serves {target}", hint="stop it first: appliance down")
    if target.exists() and any(target.iterdir()) and not replace:
        raise ApplianceError("conflict", f"{target} is not empty", hint="name another --home, or move it aside with --replace")
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f".{target.name}.restoring-*"):  # of a restore that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    owner = _future_owner(target)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.restoring-", dir=target.parent))
    try:
        with _held(temporary) as folder:
            index = unpack(archive, folder, public)
            records = _proven_audit(folder)
            _give_away(folder, owner)
            sync_file_system(folder)  # one call for all files: they become the home only by the rename that follows
        aside = _move_aside(target)
        temporary.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Restored(target, aside, records, index)


def _future_owner(target: Path) -> tuple[int, int] | None:
    """User and group that the home is for when root restores it: who had it, else the box user of the site; None = who restores."""
    if os.geteuid() != 0:
        return None
    if target.is_dir() and (status := target.stat()).st_uid != 0:
        return status.st_uid, status.st_gid
    site = os.environ.get(SITE_VARIABLE)
    settings = settings_or_none(Site(Path(site))) if site else None
    account = named(settings.user) if settings is not None else {}
    return (account["user"], account["group"]) if account else None


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """A path to the new folder that no renaming beside it can turn into another one: its parent may belong to somebody else."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        held = Path(f"/proc/self/fd/{descriptor}")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077 or any(held.iterdir()):
            raise ApplianceError("conflict", f"somebody exchanged {folder}", hint="look who may write beside it")
        yield held
    finally:
        os.close(descriptor)


def _give_away(folder: Path, owner: tuple[int, int] | None) -> None:
    """Hand everything over, the folder itself last: until then nobody else can reach what is in it."""
    if owner is None:
        return
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(place) / name, *owner, follow_symlinks=False)
    os.chown(folder, *owner)


def _proven_audit(folder: Path) -> int:
    if not (folder / "audit").is_dir():
        return 0
    verdict = verify_log(folder / "audit", load_public_key(folder / "keys" / PUBLIC_NAME))
    if verdict.fault is not None:
        raise ApplianceError("audit_broken", f"the audit log in the backup is broken at record {verdict.fault.seq}", hint="use another backup")
    return verdict.records


def _move_aside(target: Path) -> Path | None:
    if not target.exists():
        return None
    if not any(target.iterdir()):
        target.rmdir()
        return None
    aside = target.with_name(f"{target.name}.replaced-{int(time.time())}")
    target.rename(aside)
    return aside

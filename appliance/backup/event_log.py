"""The event log in a backup. Owns: whether a server works on it, and where its copy lies in the home that is restored.

While a server works, each stream is taken by the server's own snapshot, at one moment, and put back by the box that starts on the restored home
(``nats/restore``). Without one, the files of the store are copied while the lock of the server is held, and are in place when they are restored.

The log of tasks is taken first: whatever it names is in the object store already, and a snapshot there that is newer than the log is passed over by who
reads it (``services.orchestrator.snapshots``). The databases are copied after it: what follows the log (execution history) may be there twice, never missing.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_config import NatsSecrets, last_port
from appliance.kit.nats_snapshots import RESTORE_FOLDER, save_stream, stream_sizes
from appliance.kit.nats_wire import NatsAddress, open_wire

FOLDER: Final = "nats"
SECRETS: Final = "secrets.json"
_STORE: Final = "store"
_FIRST: Final = "TASKS"
_CONNECT_SECONDS: Final = 10.0
_LEFT_FREE_BYTES: Final = 512 * 1024 * 1024


def take_event_log(home: Path, folder: Path) -> None:
    """Copy the event log of ``home`` into ``folder`` (which becomes ``nats`` of the restored home); nothing when there is none.

    Raises:
        ApplianceError: ``unavailable`` when its server does not answer, ``disk_full``, ``home_invalid``.
    """
    source = home / FOLDER
    if source.is_symlink() or not _is_plain(source / SECRETS):
        return
    folder.mkdir(mode=0o700)
    try:
        shutil.copyfile(source / SECRETS, folder / SECRETS, follow_symlinks=False)
        with _lock_of(source) as is_free:
            if is_free:
                store = source / _STORE
                _check_room(sum((Path(place) / name).lstat().st_size for place, _, names in os.walk(store) for name in names), folder)
                if store.is_dir() and not store.is_symlink():
                    shutil.copytree(store, folder / _STORE, symlinks=True)
            else:
                (folder / RESTORE_FOLDER).mkdir(mode=0o700)
                asyncio.run(_from_server(source, folder / RESTORE_FOLDER, source.stat().st_uid))
    except OSError as exc:
        raise ApplianceError("home_invalid", f"the event log cannot be copied: {exc.strerror or exc}", hint="see the disk and the rights") from exc


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def _lock_of(source: Path) -> Iterator[bool]:
    """Whether no server works there; none can begin then, for the length of the block."""
    try:
        descriptor = os.open(source / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


async def _from_server(source: Path, folder: Path, owner: int) -> None:
    port = last_port(source)
    if port is None:
        raise ApplianceError("unavailable", "the event log is just being started", hint="repeat it in a moment")
    address = NatsAddress((("127.0.0.1", port),), "box", NatsSecrets.kept_in(source / SECRETS).box, owner=owner)
    async with open_wire(address, "backup") as wire:
        await wire.wait_connected(_CONNECT_SECONDS)
        sizes = await stream_sizes(wire)
        _check_room(sum(sizes.values()), folder)
        if _FIRST in sizes:
            await save_stream(wire, _FIRST, folder)
        await asyncio.gather(*(save_stream(wire, name, folder) for name in sizes if name != _FIRST))


def _check_room(size_bytes: int, folder: Path) -> None:
    """The copy lies in the home until it is in the archive: it must not be what fills the disk of the box."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + _LEFT_FREE_BYTES:
        hint = "make room on the disk of the home; the copy of the event log needs it for a moment"
        raise ApplianceError("disk_full", f"the event log has {size_bytes / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free", hint=hint)

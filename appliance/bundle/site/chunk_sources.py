"""Where the bytes of a new generation come from: the verified bundle file (same descriptor), or files of generations that are installed already.

Every chunk is hashed while it is read, whatever its source: a file that was altered after its installation is found here, not later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import BLOB_FOLDER, Member, lay_out
from appliance.bundle.format.manifest import BundleFile as ManifestFile
from appliance.bundle.format.manifest import Chunk, Manifest
from appliance.bundle.reader import BundleFile
from appliance.bundle.site.durable import site_failure
from appliance.bundle.site.layout import Generation
from appliance.bundle.verify import VerifiedBundle
from appliance.kit.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class _Place:
    """A chunk inside an installed file."""

    path: Path
    offset: int


@dataclass
class ChunkSources:
    """Finds and reads chunks. Use :func:`chunk_sources`."""

    bundle: BundleFile
    members: dict[str, Member]
    installed: dict[str, _Place]
    twins: dict[str, list[Path]]

    def read(self, chunk: Chunk) -> bytes:
        """The content of ``chunk``. Raises ``bundle_altered``, ``bundle_incomplete``, ``site_invalid``."""
        member = self.members.get(chunk.sha256)
        if member is not None:
            return self.bundle.read_blob(member)
        place = self.installed.get(chunk.sha256)
        if place is None:
            raise refusal("bundle_incomplete", f"blob {chunk.sha256} is neither in the bundle nor in an installed generation")
        data = _read_place(place, chunk.size)
        if sha256(data).hexdigest() != chunk.sha256:
            raise ApplianceError(
                "site_invalid", f"{place.path} was changed after it was installed; a delta cannot be built on it",
                hint="bring the full bundle instead of the delta, and tell your security officer which file was changed",
            )  # fmt: skip
        return data

    def twin(self, file: ManifestFile) -> Iterator[Path]:
        """Installed files that had the content of ``file`` when they were installed, and its mode."""
        yield from self.twins.get(_twin_key(file), ())


@contextmanager
def chunk_sources(bundle: BundleFile, heads_end: int, verified: VerifiedBundle, generations: Sequence[Generation]) -> Iterator[ChunkSources]:
    """Index what is at hand; ``generations`` newest last.

    Raises:
        ApplianceError: ``bundle_incomplete`` when neither the bundle nor the site has everything.
    """
    manifest = verified.manifest
    carried = manifest.blobs if verified.delta is None else verified.delta.carried(manifest)
    members = {member.name.removeprefix(BLOB_FOLDER): member for member in lay_out(heads_end, carried)}
    missing = {blob.sha256 for blob in manifest.blobs} - members.keys()
    installed: dict[str, _Place] = {}
    twins: dict[str, list[Path]] = {}
    wanted = {_twin_key(file) for file in manifest.files}
    for generation in reversed(generations):
        _index(generation, missing, installed, wanted, twins)
    absent = missing - installed.keys()
    if absent:
        base = f" {verified.delta.base.version} (sequence {verified.delta.base.sequence})" if verified.delta else ""
        raise refusal("bundle_incomplete", f"the delta needs its base{base}, which is not installed here: {len(absent)} blobs are missing")
    yield ChunkSources(bundle, members, installed, twins)


def _index(generation: Generation, missing: set[str], installed: dict[str, _Place], wanted: set[str], twins: dict[str, list[Path]]) -> None:
    try:
        manifest: Manifest = generation.manifest()
    except ApplianceError:
        return  # a generation whose own manifest was altered is no source
    for file in manifest.files:
        path = generation.path / file.path
        if _twin_key(file) in wanted:
            twins.setdefault(_twin_key(file), []).append(path)
        offset = 0
        for chunk in file.chunks:
            if chunk.sha256 in missing:
                installed.setdefault(chunk.sha256, _Place(path, offset))
            offset += chunk.size


def _twin_key(file: ManifestFile) -> str:
    return f"{file.mode} {file.sha256}"


def _read_place(place: _Place, size: int) -> bytes:
    """What is there; too little fails its digest."""
    try:
        descriptor = os.open(place.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    except OSError as exc:
        raise site_failure(place.path, exc) from exc
    try:
        return os.pread(descriptor, size, place.offset)
    finally:
        os.close(descriptor)

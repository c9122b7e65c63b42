"""Deltas: what a site that has one bundle needs for another, as a container of its own; and a full bundle from base and delta.

Owns: which file is taken as what, and that a delta is applied to its own base only. Does not own: trust. A delta carries the signature of
the full bundle, so ``bundle verify`` and ``install`` check it like one; what ``apply`` gives back is the same file as NEW, byte for byte.

Invariants:
1. Blobs are chunks of content: a changed file costs the chunks around the change, wherever it moved to.
2. A blob is written only when it has its digest; a base or delta that was altered ends the command, and nothing is left behind.
3. A base is a full bundle, or for making a delta its manifest alone; a delta is never the base or the target of another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.bundle.build.writer import ChangedBlobError, write_bundle
from appliance.bundle.format import canonical_json
from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import BLOB_FOLDER, DELTA, END, MANIFEST, PROVENANCE, ROOT_CHAIN, lay_out
from appliance.bundle.format.delta import Delta, parse_delta
from appliance.bundle.format.dsse import MAX_ENVELOPE_BYTES, parse_envelope
from appliance.bundle.format.manifest import MAX_MANIFEST_BYTES, Chunk, Manifest, invalid, parse_manifest
from appliance.bundle.reader import BundleFile, Heads, Progress, open_bundle
from appliance.bundle.verify import STATEMENT_TYPE
from appliance.kit.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class DeltaResult:
    """What came out: digest (hex) and length of the file, length of the full bundle, blobs carried, blobs in all."""

    sha256: str
    size: int
    full_size: int
    carried: int
    blobs: int


class ContainerBlobs:
    """The blobs of one open bundle or delta. :meth:`read` is safe from several threads. Use :func:`open_contents`."""

    def __init__(self, file: BundleFile, heads: Heads) -> None:
        self.file, self.heads = file, heads
        self.manifest: Manifest = parse_manifest(heads.manifest)
        if not _names(heads.provenance, self.manifest.digest):
            raise refusal("bundle_altered", f"{file.path.name}: its provenance is not about its manifest")
        self.delta: Delta | None = None if heads.delta is None else parse_delta(heads.delta)
        carried = self.manifest.blobs if self.delta is None else self.delta.carried(self.manifest)
        members = lay_out(heads.end, carried)
        end = (members[-1].end if members else heads.end) + len(END)
        if file.size < end:
            raise refusal("bundle_incomplete", f"{file.path.name} has {file.size} bytes, {end} are needed: it was cut short")
        if file.size > end:
            raise invalid(f"{file.path.name} has {file.size - end} bytes more than a bundle with its manifest")
        self._offsets = {member.name.removeprefix(BLOB_FOLDER): member.content_offset for member in members}

    def has(self, blob: Chunk) -> bool:
        """Whether the file carries ``blob``."""
        return blob.sha256 in self._offsets

    def read(self, blob: Chunk, buffer: memoryview) -> None:
        """Fill ``buffer`` with the content of ``blob``; whether it has its digest is for the caller to check."""
        self.file.read_into(buffer, self._offsets[blob.sha256])


@contextmanager
def open_contents(path: Path) -> Iterator[ContainerBlobs]:
    """Open a bundle or a delta whose length and manifest fit together. Raises ``not_found``, ``bundle_invalid``, ``bundle_incomplete``."""
    with open_bundle(path) as file:
        yield ContainerBlobs(file, file.heads())


def make_delta(base: Path, new: Path, target: Path, *, progress: Progress | None = None) -> DeltaResult:
    """Write the delta from ``base`` to ``new``.

    Args:
        base: a full bundle, or the ``manifest.json`` of a site.
        new: a full bundle.
        target: the delta; replaced when it exists.
        progress: told of bytes written.

    Raises:
        ApplianceError: ``bundle_incompatible`` (base of another name or platform), ``bundle_older`` (base is newer), ``invalid_request`` (base or
            new is a delta, or both are the same), ``bundle_altered`` (new), ``bundle_invalid``, ``not_found``, ``disk_full``, ``conflict``.
    """
    old = read_base_manifest(base)
    with open_contents(new) as source:
        _require_full(source, new)
        _check_pair(old, source.manifest)
        delta = Delta.between(old, source.manifest)
        carried = delta.carried(source.manifest)
        digest = _write(target, [*_full_heads(source.heads), (DELTA, delta.to_bytes())], carried, [source], progress)
        return DeltaResult(digest, target.stat().st_size, source.file.size, len(carried), len(source.manifest.blobs))


def apply_delta(base: Path, delta: Path, target: Path, *, progress: Progress | None = None) -> DeltaResult:
    """Write the full bundle that ``delta`` was made of.

    Args:
        base: the full bundle that the delta names as its base.
        delta: the delta.
        target: the full bundle; replaced when it exists.
        progress: told of bytes written.

    Raises:
        ApplianceError: ``bundle_incompatible`` (another base), ``bundle_incomplete`` (blobs are in neither), ``bundle_altered`` (base or delta),
            ``invalid_request`` (base is a delta, or delta is none), ``bundle_invalid``, ``not_found``, ``disk_full``, ``conflict``.
    """
    with open_contents(base) as old, open_contents(delta) as new:
        _require_full(old, base)
        if new.delta is None:
            raise ApplianceError("invalid_request", f"{delta.name} is a full bundle, not a delta", hint="it needs no base: use it as it is")
        named = new.delta.base
        if old.manifest.digest != named.manifest_sha256:
            hint = f"give the bundle {named.name} {named.version} with the sequence {named.sequence} as the base"
            raise ApplianceError("bundle_incompatible", f"{base.name} is not the base of {delta.name}", hint=hint)
        absent = sum(not new.has(blob) and not old.has(blob) for blob in new.manifest.blobs)
        if absent:
            raise refusal("bundle_incomplete", f"{absent} blobs are neither in the delta nor in its base")
        digest = _write(target, _full_heads(new.heads), new.manifest.blobs, [new, old], progress)
        size = target.stat().st_size
        return DeltaResult(digest, size, size, len(new.delta.blobs), len(new.manifest.blobs))


def read_base_manifest(path: Path) -> Manifest:
    """The manifest of a full bundle, or a ``manifest.json`` itself. Raises ``bundle_invalid``, ``not_found``, ``invalid_request``."""
    with open_bundle(path) as file:
        if file.size and file.read(0, 1) == b"{":
            return parse_manifest(file.read(0, min(file.size, MAX_MANIFEST_BYTES + 1)))
    with open_contents(path) as contents:
        _require_full(contents, path)
        return contents.manifest


def _names(provenance: bytes, manifest_sha256: str) -> bool:
    """Whether the provenance speaks of that manifest. Who signed it is a question for ``bundle verify``."""
    envelope = parse_envelope(provenance, PROVENANCE, payload_type=STATEMENT_TYPE)
    statement = canonical_json.decode(envelope.payload, PROVENANCE, limit_bytes=MAX_ENVELOPE_BYTES)
    subject = [{"name": MANIFEST, "digest": {"sha256": manifest_sha256}}]
    return isinstance(statement, dict) and statement.get("subject") == subject


def _require_full(contents: ContainerBlobs, path: Path) -> None:
    if contents.delta is not None:
        hint = "use the full bundle; as --from, the manifest.json of the site will do; delta --apply makes a full bundle of a delta and its base"
        raise ApplianceError("invalid_request", f"{path.name} is a delta itself", hint=hint)


def _check_pair(old: Manifest, new: Manifest) -> None:
    if old.digest == new.digest:
        raise ApplianceError("invalid_request", "both are the same bundle: there is nothing to carry", hint="give the bundle of the site as --from")
    if (old.name, old.target) != (new.name, new.target):
        hint = "a delta is made between releases of one bundle for one platform"
        raise ApplianceError("bundle_incompatible", f"the base is {_described(old)}, the new bundle {_described(new)}", hint=hint)
    if old.sequence >= new.sequence:
        message = f"the base has the sequence {old.sequence}, the new bundle {new.sequence}"
        raise ApplianceError("bundle_older", message, hint="swap the two: --from OLD NEW")


def _described(manifest: Manifest) -> str:
    return f"{manifest.name} for {manifest.target.os} {manifest.target.arch} Python {manifest.target.python}"


def _full_heads(heads: Heads) -> list[tuple[str, bytes]]:
    return [(PROVENANCE, heads.provenance), (ROOT_CHAIN, heads.root_chain), (MANIFEST, heads.manifest)]


def _write(
    target: Path, heads: Sequence[tuple[str, bytes]], blobs: Sequence[Chunk], sources: Sequence[ContainerBlobs], progress: Progress | None
) -> str:
    """Write a container; each blob comes from the first of ``sources`` that has it."""
    for source in sources:
        if target.exists() and os.path.samestat(target.stat(), source.file.path.stat()):
            raise ApplianceError("invalid_request", f"{target.name} is one of the inputs", hint="choose another output file")

    def read(blob: Chunk, buffer: memoryview) -> None:
        next(source for source in sources if source.has(blob)).read(blob, buffer)

    try:
        return write_bundle(target, heads, blobs, read, progress=progress)
    except ChangedBlobError as error:
        name = next(source.file.path.name for source in sources if source.has(error.blob))
        raise refusal("bundle_altered", f"{name}: the content of blob {error.blob.sha256} was changed") from error

"""Adds this station's signature to a bundle that another station has built: for thresholds whose keys live on different machines.

Owns: the copy with new heads, and what is checked before a key is used: the bundle's first root is this station's, the signed manifest is the
one in the file, and every blob has its digest (it is hashed as it is copied). Does not own: the container and the envelope (``format``), keys.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from appliance.audit.durable_files import is_disk_full, sync_folder
from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import DELTA, END, MANIFEST, PROVENANCE, ROOT_CHAIN, header, lay_out, padding
from appliance.bundle.format.delta import parse_delta
from appliance.bundle.format.dsse import Envelope, parse_envelope
from appliance.bundle.format.manifest import Manifest, invalid, parse_manifest
from appliance.bundle.format.trust_root import parse_chain
from appliance.bundle.keys import Station
from appliance.bundle.reader import BundleFile, Heads, Progress
from appliance.bundle.verify import STATEMENT_TYPE, read_statement
from appliance.kit.errors import ApplianceError


@dataclass(frozen=True, slots=True)
class Signed:
    """What came out: ``missing`` signatures are still needed; ``signers`` are the key ids in the file."""

    manifest: Manifest
    signers: tuple[str, ...]
    missing: int


def sign_bundle(station: Station, file: BundleFile, output: Path, *, progress: Progress | None = None) -> Signed:
    """Write ``file`` with this station's signatures to ``output`` (which may be the same path). Streams; whole or absent.

    Raises:
        ApplianceError: ``trust_invalid`` (another root, no key here), ``bundle_altered``, ``bundle_invalid``, ``disk_full``.
    """
    heads = file.heads()
    _check_chain(station, heads.root_chain)
    envelope = parse_envelope(heads.provenance, PROVENANCE, payload_type=STATEMENT_TYPE)
    _, subject = read_statement(envelope)
    if sha256(heads.manifest).hexdigest() != subject:
        raise refusal("bundle_altered", "manifest.json is not the one that was signed")
    manifest = parse_manifest(heads.manifest)
    signed = station.add_signature(_without_strangers(station, envelope))
    with _written(output) as out:
        _copy(file, heads, manifest, signed.to_bytes(), station.chain_bytes, out, progress)
    return Signed(manifest, tuple(entry.keyid for entry in signed.signatures), station.missing_signatures(signed))


def _check_chain(station: Station, chain: bytes) -> None:
    theirs = [envelope.payload for envelope in parse_chain(chain)]
    ours = [envelope.payload for envelope in station.chain]
    if theirs != ours[: len(theirs)]:
        raise ApplianceError(
            "trust_invalid",
            "the chain of roots in the bundle is not (the beginning of) this station's",
            hint="compare: appliance bundle inspect FILE, appliance trust show; a longer chain is taken over by appliance trust accept",
        )


def _without_strangers(station: Station, envelope: Envelope) -> Envelope:
    """Signatures of retired keys and broken ones are left out of the new file."""
    role = station.root.roles["bundle"]
    good = envelope.signers({keyid: station.root.keys[keyid].public for keyid in role.keys})
    return Envelope(envelope.payload_type, envelope.payload, tuple(entry for entry in envelope.signatures if entry.keyid in good))


def _copy(file: BundleFile, heads: Heads, manifest: Manifest, provenance: bytes, chain: bytes, out: BinaryIO, progress: Progress | None) -> None:
    carried = manifest.blobs if heads.delta is None else parse_delta(heads.delta).carried(manifest)
    members = lay_out(heads.end, carried)
    if file.size != members.end + len(END):
        raise invalid(f"{file.path.name}: its length is not that of its blobs")
    contents = [(PROVENANCE, provenance), (ROOT_CHAIN, chain), (MANIFEST, heads.manifest)]
    if heads.delta is not None:
        contents.append((DELTA, heads.delta))
    out.writelines(header(name, len(content)) + content + padding(len(content)) for name, content in contents)
    total, done = sum(member.size for member in members), 0
    for member in members:
        out.write(header(member.name, member.size))
        out.write(file.read_blob(member))
        out.write(padding(member.size))
        done += member.size
        if progress is not None:
            progress(done, total)
    out.write(END)


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            with temporary.open("xb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise ApplianceError("disk_full", f"no space to write {path.name}", hint="free space, or name another folder with -o") from error
        raise ApplianceError("invalid_request", f"cannot write {path}: {error.strerror}", hint="check the folder and its rights") from error

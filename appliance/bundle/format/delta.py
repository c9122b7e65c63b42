"""``delta.json``: which blobs of the manifest a delta carries, and which base has the others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.bundle.format import canonical_json
from appliance.bundle.format.canonical_json import refusal
from appliance.bundle.format.container import DELTA, MAX_HEAD_BYTES
from appliance.bundle.format.manifest import MAX_CHUNKS, Chunk, Manifest, check_digest, exact_keys, invalid, whole_number

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Base:
    """The bundle whose blobs a delta leaves out."""

    name: str
    version: str
    sequence: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Delta:
    """``blobs``: digests that are in the file, in the order of the container."""

    base: Base
    blobs: tuple[str, ...]

    @classmethod
    def between(cls, base: Manifest, new: Manifest) -> Delta:
        """What a site that has ``base`` needs for ``new``."""
        there = {blob.sha256 for blob in base.blobs}
        return cls(Base(base.name, base.version, base.sequence, base.digest), tuple(blob.sha256 for blob in new.blobs if blob.sha256 not in there))

    def to_bytes(self) -> bytes:
        """Canonical form."""
        base = {"name": self.base.name, "version": self.base.version, "sequence": self.base.sequence, "manifest_sha256": self.base.manifest_sha256}
        return canonical_json.encode({"schema_version": SCHEMA_VERSION, "base": base, "blobs": list(self.blobs)})

    def carried(self, manifest: Manifest) -> Sequence[Chunk]:
        """The blobs that are in the file. Raises ``bundle_invalid`` when they are not some of the manifest's, in its order."""
        wanted = set(self.blobs)
        found = [blob for blob in manifest.blobs if blob.sha256 in wanted]
        if tuple(blob.sha256 for blob in found) != self.blobs:
            raise invalid("delta.json: its blobs are not some of the manifest's, in the manifest's order")
        return found

    def check_base(self, manifest: Manifest, base: Manifest) -> None:
        """Refuse a ``base`` that does not complete this delta of ``manifest``. Raises ``bundle_incomplete``."""
        if base.digest != self.base.manifest_sha256:
            raise refusal(
                "bundle_incomplete",
                f"the delta needs {self.base.name} {self.base.version} with the sequence {self.base.sequence}, not {base.name} {base.version} with {base.sequence}",
            )
        there = {*self.blobs, *(blob.sha256 for blob in base.blobs)}
        missing = sum(blob.sha256 not in there for blob in manifest.blobs)
        if missing:
            raise refusal("bundle_incomplete", f"{missing} blobs are neither in the delta nor in its base")


def parse_delta(data: bytes) -> Delta:
    """Read ``delta.json`` strictly. Raises ``bundle_invalid``."""
    document = canonical_json.decode(data, DELTA, limit_bytes=MAX_HEAD_BYTES[DELTA], limit_tables=2, limit_values=MAX_CHUNKS + 10)
    try:
        top = exact_keys(document, {"schema_version", "base", "blobs"}, DELTA)
        if not canonical_json.is_integer(top["schema_version"], SCHEMA_VERSION) or not isinstance(top["blobs"], list):
            raise ValueError("unknown schema_version, or blobs is not a list")
        base = exact_keys(top["base"], {"name", "version", "sequence", "manifest_sha256"}, "base")
        if not all(isinstance(base[key], str) and len(base[key]) <= 64 and base[key].isprintable() for key in ("name", "version")):
            raise ValueError("base: name and version are short texts")
        sequence = whole_number(base["sequence"], 2**53 - 1, "base: sequence")
        return Delta(
            Base(base["name"], base["version"], sequence, check_digest(base["manifest_sha256"])), tuple(check_digest(item) for item in top["blobs"])
        )
    except (ValueError, TypeError) as exc:
        raise invalid(f"{DELTA}: {exc}") from exc

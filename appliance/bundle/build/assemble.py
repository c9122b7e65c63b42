"""Builds a bundle: collect, cut, describe, sign, write.

Owns: the order of the steps and what goes between them. Does not own: any step (one module each), what is on the screen (the caller's ``Watcher``).

Steps:
1. read the definition and the tree; settle the time of issue and the sequence
2. collect the files of every component
3. cut them into chunks (from the cache where a file is unchanged)
4. check the licence policy; make SBOM, licences report and release facts: the component ``metadata``
5. make the manifest, the provenance about it, sign
6. write the file, hashing everything again; what does not fit is forgotten, and the build goes back to step 2
7. put the companions beside it: the digest, and the program that installs on a host that has nothing yet
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from appliance.bundle.build.blob_sources import BlobSources
from appliance.bundle.build.checkout import Checkout, read_checkout
from appliance.bundle.build.chunk_cache import ChunkCache
from appliance.bundle.build.chunking import digest_bytes
from appliance.bundle.build.collect import Collector, is_tree
from appliance.bundle.build.companions import write_companions
from appliance.bundle.build.contents import Collected, Item, Watcher
from appliance.bundle.build.definition import Definition
from appliance.bundle.build.licences import check_policy, licences_document, licences_files
from appliance.bundle.build.model_files import model_trust
from appliance.bundle.build.provenance import statement_bytes
from appliance.bundle.build.release_facts import Project, read_project, release_file, schema_heads
from appliance.bundle.build.sbom import sbom_files
from appliance.bundle.build.tree_files import chosen
from appliance.bundle.build.writer import ChangedBlobError, write_bundle
from appliance.bundle.format.container import MANIFEST, PROVENANCE, ROOT_CHAIN
from appliance.bundle.format.manifest import BundleFile, Component, Manifest, format_time, parse_manifest
from appliance.bundle.keys import Station
from appliance.bundle.verify import STATEMENT_TYPE
from appliance.kit.errors import ApplianceError

_ATTEMPTS: Final = 3
METADATA: Final = "metadata"


@dataclass(frozen=True, slots=True)
class Build:
    """What is to be built, and with what.

    Attributes:
        definition: what goes in.
        output: the bundle file.
        station: whose keys sign.
        home: whose models go in.
        cache: folder for wheels, packages and remembered chunks.
        issued_at: Unix seconds; None: from the sources.
        sequence: None: ``issued_at``.
        without: kinds to leave out.
        offline: fetch nothing.
        refresh: ask apt again although the cache knows an answer.
        jobs: threads.
        whole_digest: hash the file as a whole too; slower by half. The bundle proves itself without it.
    """

    definition: Definition
    output: Path
    station: Station
    home: Path
    cache: Path
    issued_at: int | None = None
    sequence: int | None = None
    without: tuple[str, ...] = ()
    offline: bool = False
    refresh: bool = False
    jobs: int = 2
    whole_digest: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that was written. ``sha256`` (hex; empty unless asked for) and ``size`` of the file; ``missing``: signatures it still needs; ``unknown``: packages without a licence."""

    path: Path
    sha256: str
    size: int
    manifest: Manifest
    missing: int
    unknown: int
    companions: tuple[Path, ...]


def build_bundle(build: Build, watcher: Watcher) -> Built:
    """Build and write the bundle.

    Raises:
        ApplianceError: from any step; nothing half-done stands at the output then.
    """
    cache = ChunkCache(build.cache / "chunks.sqlite")
    try:
        for attempt in range(1, _ATTEMPTS + 1):
            sources = BlobSources()
            try:
                return _attempt(build, cache, sources, watcher)
            except ChangedBlobError as error:
                path = sources.path_of(error.blob.sha256)
                if path is None or attempt == _ATTEMPTS:
                    raise
                watcher.warn(f"{path} has changed since it was read; reading it again")
                cache.forget(path)
            except FileNotFoundError as error:
                hint = "stop whatever changes the inputs, then run the command again"
                raise ApplianceError("conflict", f"{error.filename} went away while the bundle was built", hint=hint) from error
        raise AssertionError("unreachable")
    finally:
        cache.close()


def _attempt(build: Build, cache: ChunkCache, sources: BlobSources, watcher: Watcher) -> Built:
    definition = build.definition
    project = read_project(definition.root)
    checkout = read_checkout(definition.root)
    issued_at, sequence = _moment(build, checkout, watcher)
    version = definition.version or project.version
    trust = model_trust(build.station.root)
    collector = Collector(build.home / "models", trust, build.cache, cache.digest, watcher, offline=build.offline, refresh=build.refresh)
    collected = collector.collect(definition, checkout, project, build.without)
    _cut(collected, cache, build.jobs, watcher)
    check_policy(collected, definition.deny, definition.accept)
    collected.append(_metadata(definition, project, version, issued_at, collected))
    components = [_component(component, cache, sources) for component in collected]
    manifest = Manifest(
        name=definition.name,
        version=version,
        sequence=sequence,
        issued_at=issued_at,
        expires_at=issued_at + timedelta(days=definition.valid_days),
        target=definition.target,
        components=tuple(sorted(components, key=lambda component: component.name)),
    )
    parse_manifest(manifest.to_bytes())  # whatever this refuses every site would refuse
    statement = statement_bytes(manifest, definition, checkout, collected, build.without, build.station.fingerprint)
    envelope = build.station.sign(STATEMENT_TYPE, statement)
    heads = [(PROVENANCE, envelope.to_bytes()), (ROOT_CHAIN, build.station.chain_bytes), (MANIFEST, manifest.to_bytes())]
    watcher.phase("writing")
    sources.check_repeats(build.jobs)
    digest = write_bundle(
        build.output, heads, manifest.blobs, sources.read, threads=build.jobs, progress=watcher.progress, whole_digest=build.whole_digest
    )
    companions = write_companions(build.output, digest)
    unknown = len(licences_document(collected, definition.accept)["unknown"])
    missing = build.station.missing_signatures(envelope)
    return Built(build.output, digest, build.output.stat().st_size, manifest, missing, unknown, companions)


def _moment(build: Build, checkout: Checkout, watcher: Watcher) -> tuple[datetime, int]:
    """Time of issue and sequence."""
    definition = build.definition
    included = {name for component in definition.components if is_tree(component.kind) for name in chosen(checkout, component)}
    included |= {lock for component in definition.components for lock in component.locks}
    there = included & set(checkout.files)
    if build.issued_at is None and (changed := sorted(there & checkout.changed)):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        watcher.warn(f"not committed: {', '.join(changed[:3])}{more}; the bundle is dated by the newest of them and cannot be repeated from a commit")
    seconds = checkout.issued_at(there) if build.issued_at is None else build.issued_at
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
        moment + timedelta(days=definition.valid_days)
    except (ValueError, OverflowError, OSError) as exc:
        raise ApplianceError("invalid_request", f"{seconds} is no time of issue", hint="Unix seconds or 2026-11-21T10:00:00Z") from exc
    return moment, seconds if build.sequence is None else build.sequence


def _cut(collected: Sequence[Collected], cache: ChunkCache, jobs: int, watcher: Watcher) -> None:
    paths = [item.source for component in collected for item in component.items if isinstance(item.source, Path)]
    total = sum(path.stat().st_size for path in paths)
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        watcher.progress(done, total)

    watcher.phase("reading")
    cache.digest_all(paths, jobs, advance)


def _metadata(definition: Definition, project: Project, version: str, issued_at: datetime, collected: Sequence[Collected]) -> Collected:
    ordered = sorted(collected, key=lambda component: component.name)
    files = sbom_files(definition.name, version, format_time(issued_at), ordered) | licences_files(ordered, definition.accept)
    sources = [item.source for component in collected for item in component.items if isinstance(item.source, Path) and is_tree(component.kind)]
    files["release.json"] = release_file(project, definition.target.python, schema_heads(sources))
    return Collected(METADATA, METADATA, version, tuple(Item(f"meta/{name}", data) for name, data in files.items()))


def _component(collected: Collected, cache: ChunkCache, sources: BlobSources) -> Component:
    files: list[BundleFile] = []
    for item in sorted(collected.items, key=lambda item: item.path):
        cut = digest_bytes(item.source) if isinstance(item.source, bytes) else cache.digest(item.source)
        sources.add(item.source, cut)
        files.append(BundleFile(item.path, item.mode, cut.size, cut.sha256, cut.chunks))
    return Component(collected.name, collected.kind, collected.version, tuple(files))

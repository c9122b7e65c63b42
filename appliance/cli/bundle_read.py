"""``appliance bundle verify | inspect | diff | sign``: verbs that read a bundle. Owns how their answers look, not what they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from appliance.bundle.format.dsse import parse_envelope
from appliance.bundle.format.trust_root import MAX_CHAIN_BYTES, PAYLOAD_TYPE, first_root, parse_chain
from appliance.bundle.inspection import Contents, difference, identity, read_contents, summary
from appliance.bundle.keys import CHAIN_NAME, Station, last_root, station_folder
from appliance.bundle.reader import Progress as Watch
from appliance.bundle.reader import open_bundle, verify_bundle
from appliance.bundle.signing import sign_bundle
from appliance.bundle.verify import Installed, Pin, Policy, VerifiedBundle
from appliance.cli.bundle_text import difference_text, licences_text, summary_text, verified_text
from appliance.identity.console import print_json, say
from appliance.kit.errors import ApplianceError

File = Annotated[Path, typer.Argument(help="A *.bundle file, full or delta.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
RootFile = Annotated[Path | None, typer.Option("--root", help="Trust this root: trust/root.dsse.json of a site, or root-chain.json of a station.")]
Fingerprint = Annotated[str, typer.Option(help="Trust the first root with this fingerprint, sha256:… as it stands on paper.")]
SiteFolder = Annotated[Path | None, typer.Option("--site", help="Trust what the site in this folder trusts, and refuse what is older than it.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance bundle``."""
    app.command("verify")(verify)
    app.command("inspect")(inspect)
    app.command("diff")(diff)
    app.command("sign")(sign)


def verify(
    file: File,
    *,
    root: RootFile = None,
    fingerprint: Fingerprint = "",
    site: SiteFolder = None,
    base: Annotated[Path | None, typer.Option("--base", help="The full bundle that completes a delta; it is verified too.")] = None,
    allow_expired: Annotated[bool, typer.Option("--allow-expired", help="Accept an expired bundle or root on purpose.")] = False,
    threads: Annotated[int, typer.Option(min=0, max=64, help="How many hash at once; 0: one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a bundle, from the root of trust down. Trusts this station's root when no other is named.

    Examples:
        appliance bundle verify embedded.bundle --fingerprint sha256:3a7b…
        appliance bundle verify update.bundle --site /opt/appliance --json
        appliance bundle verify delta.bundle --base old.bundle
    """
    pin, policy = _trust(root, fingerprint, site), _policy(site, allow_expired=allow_expired)
    started = time.monotonic()
    verified, size = _verified(file, pin, policy, threads)
    if base is not None:
        found, more = _verified(base, _pin_of_itself(base), Policy(policy.now, allow_expired=True), threads)
        size += more
        if verified.delta is not None:
            verified.delta.check_base(verified.manifest, found.manifest)
    seconds = max(time.monotonic() - started, 1e-6)
    report = _report(verified, file, size, seconds, complete=verified.delta is None or base is not None)
    if as_json:
        print_json(report)
        return
    sys.stdout.write(verified_text(report))
    if not report["complete"]:
        say("this is a delta: what it carries holds; --base OLD.bundle also checks that it is all there")


def inspect(
    file: File,
    *,
    files: Annotated[bool, typer.Option("--files", help="List every file.")] = False,
    component: Annotated[str, typer.Option(help="Only this component.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a bundle says of itself. Proves nothing: `appliance bundle verify` does.

    Examples:
        appliance bundle inspect embedded.bundle
        appliance bundle inspect embedded.bundle --files --component wheelhouse
    """
    with open_bundle(file) as opened:
        contents = read_contents(opened)
        report: dict[str, Any] = {"verified": False, **summary(contents)}
    _narrow(report, contents, component, with_files=files)
    if as_json:
        print_json(report)
        return
    say("NOT VERIFIED: this is what the file says of itself, and it may lie; appliance bundle verify proves it")
    sys.stdout.write(summary_text(report))
    sys.stdout.write(licences_text(report["licences"]))


def diff(
    old: Annotated[Path, typer.Argument(help="The bundle that is there.")],
    new: Annotated[Path, typer.Argument(help="The bundle that is to come; may be a delta.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what changes from one bundle to another: packages, models, schema, files, and how many bytes are new. Proves nothing.

    Example: `appliance bundle diff v1.bundle v2.bundle`
    """
    with open_bundle(old) as before, open_bundle(new) as after:
        report = {"verified": False, **difference(read_contents(before), read_contents(after))}
    if as_json:
        print_json(report)
        return
    say("NOT VERIFIED: appliance bundle verify proves both files")
    sys.stdout.write(difference_text(report))


def sign(
    file: File,
    *,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; default: in place of FILE.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add the signatures of this station's keys, when a threshold needs keys of several machines. Hashes every blob before it is written.

    Example: `APPLIANCE_STATION=/media/second-officer appliance bundle sign embedded.bundle -o signed.bundle`
    """
    station = Station.open(station_folder())
    with open_bundle(file) as opened, _progress("signing", file) as watch:
        done = sign_bundle(station, opened, output or file, progress=watch)
    if as_json:
        print_json({"file": str(output or file), "manifest_sha256": done.manifest.digest, "signers": list(done.signers), "missing": done.missing})
        return
    state = "complete" if done.missing == 0 else f"{done.missing} more needed"
    say(f"{output or file}: {done.manifest.name} {done.manifest.version} carries {len(done.signers)} signatures, {state}")


def pin_of_file(path: Path) -> Pin:
    """The root in ``path``: one envelope, or a chain of which the last counts. Raises ``trust_invalid``."""
    data = read_chain_file(path)
    if data.startswith(b"["):
        return Pin(root=last_root(parse_chain(data)))
    return Pin(root=first_root(parse_envelope(data, path.name, payload_type=PAYLOAD_TYPE, code="trust_invalid")))


def read_chain_file(path: Path) -> bytes:
    """At most one byte more than a chain may have. Raises ``trust_invalid``."""
    try:
        with path.open("rb") as opened:
            return opened.read(MAX_CHAIN_BYTES + 1)
    except OSError as error:
        raise ApplianceError("trust_invalid", f"cannot read {path}: {error.strerror}", hint="name a file with a root of trust") from error


def pin_of_fingerprint(text: str) -> Pin:
    """``sha256:<64 hex digits>``, also in groups and upper case as on paper. Raises ``invalid_request``."""
    digits = "".join(text.lower().removeprefix("sha256:").replace(":", " ").replace("-", " ").split())
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise ApplianceError("invalid_request", "a fingerprint has 64 hex digits after sha256:", hint="appliance trust fingerprint prints it")
    return Pin(first_fingerprint=digits)


def _trust(root: Path | None, fingerprint: str, site: Path | None) -> Pin:
    if sum((root is not None, bool(fingerprint), site is not None)) > 1:
        raise ApplianceError("invalid_request", "name one of --root, --fingerprint and --site", hint="appliance bundle verify --help")
    if root is not None:
        return pin_of_file(root)
    if fingerprint:
        return pin_of_fingerprint(fingerprint)
    if site is not None:
        return pin_of_file(site / "trust" / "root.dsse.json")
    if (station_folder() / CHAIN_NAME).is_file():
        station = Station.open(station_folder())
        say(f"trusting the root of this station, sha256:{station.fingerprint}")
        return station.pin
    raise ApplianceError(
        "trust_invalid",
        "nothing says which root of trust is the right one",
        hint="compare with paper: appliance bundle verify FILE --fingerprint sha256:…; or --root FILE, or --site /opt/appliance",
    )


def _pin_of_itself(base: Path) -> Pin:
    """A base need not be trusted: what is taken from it has the digests that the delta's signed manifest names."""
    with open_bundle(base) as opened:
        return Pin(first_fingerprint=sha256(parse_chain(opened.heads().root_chain)[0].payload).hexdigest())


def _policy(site: Path | None, *, allow_expired: bool) -> Policy:
    from appliance.bundle.site.layout import Site
    from appliance.bundle.site.records import now_seen, read_state

    if site is None:
        return Policy(datetime.now(UTC), allow_expired=allow_expired)
    state = read_state(Site(site))
    installed = Installed(state.name, state.sequence, state.manifest_sha256) if state.name else None
    return Policy(now_seen(state), installed=installed, allow_expired=allow_expired)


def _verified(path: Path, pin: Pin, policy: Policy, threads: int) -> tuple[VerifiedBundle, int]:
    with open_bundle(path) as opened, _progress("verifying", path) as watch:
        return verify_bundle(opened, pin, policy, threads=threads or None, progress=watch), opened.size


def _report(verified: VerifiedBundle, path: Path, size: int, seconds: float, *, complete: bool) -> dict[str, Any]:
    manifest, root = verified.manifest, verified.root
    return {
        "verified": True,
        "file": str(path),
        **identity(manifest),
        "kind": "full" if verified.delta is None else "delta",
        "complete": complete,
        "root_version": root.version,
        "signers": [{"keyid": keyid, "comment": root.keys[keyid].comment} for keyid in verified.signers],
        "threshold": root.roles["bundle"].threshold,
        "components": len(manifest.components),
        "files": sum(1 for _ in manifest.files),
        "blobs": len(manifest.blobs if verified.delta is None else verified.delta.blobs),
        "overrides": list(verified.overrides),
        "bytes": size,
        "seconds": round(seconds, 3),
        "bytes_per_second": round(size / seconds),
    }


def _narrow(report: dict[str, Any], contents: Contents, component: str, *, with_files: bool) -> None:
    names = [row["name"] for row in report["components"]]
    if component and component not in names:
        raise ApplianceError("not_found", f"no component {component!r} in this bundle", hint=f"there are: {', '.join(names)}")
    if component:
        report["components"] = [row for row in report["components"] if row["name"] == component]
    if with_files or component:
        chosen = [part for part in contents.manifest.components if component in {"", part.name}]
        report["file_list"] = [
            {"path": file.path, "mode": file.mode, "bytes": file.size, "sha256": file.sha256} for part in chosen for file in part.files
        ]


@contextmanager
def _progress(doing: str, path: Path) -> Iterator[Watch | None]:
    """A bar on stderr, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{doing} {path.name}", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield watch

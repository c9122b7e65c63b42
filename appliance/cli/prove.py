"""``appliance prove-airgap`` and ``appliance proof verify``: make the proof that nothing gets out, and check one. What they do is in ``appliance.proof``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from appliance.identity.console import home_folder, say
from appliance.kit.errors import ApplianceError
from appliance.proof.plan import legible

if TYPE_CHECKING:
    from appliance.proof.journey import Goods

app = typer.Typer(no_args_is_help=True, help="Reports of appliance prove-airgap: verify.")
MODE_NAMES: Final = "no-route,refuse,drop"
_SECONDS: Final = 1800.0
_ENDINGS: Final = {
    "egress": (
        "egress_detected",
        "something tried to leave the box",
        "the report lists process, call, address and time; do not put this box into operation",
    ),
    "invalid": (
        "proof_invalid",
        "a control failed: the recorder did not catch what it should have",
        "the report proves nothing; repeat it on another machine",
    ),
    "failed": (
        "smoke_failed",
        "nothing tried to leave, but the box did not do all it should",
        "the table says which phase; repeat with --keep to see its output",
    ),
}


def prove_airgap(
    *,
    bundle: Annotated[Path | None, typer.Option(help="Bundle to install; default: bundles/embedded.toml is built now.")] = None,
    upgrade: Annotated[Path | None, typer.Option(help="Newer bundle of the same name, to upgrade to.")] = None,
    fingerprint: Annotated[str, typer.Option(help="sha256:… of the first root of trust; default: that of the station, or of $APPLIANCE_SITE.")] = "",
    models: Annotated[Path | None, typer.Option(help="A site's own models.toml, to prove that configuration.")] = None,
    modes: Annotated[str, typer.Option(help="Kinds of closed network.")] = MODE_NAMES,
    starts: Annotated[int, typer.Option(min=3, max=60, help="Starts per mode for the median.")] = 3,
    output: Annotated[Path, typer.Option("--output", "-o", help="The signed report.")] = Path("airgap-proof.json"),
    key: Annotated[
        Path | None, typer.Option(help="Ed25519 private key (PEM); default: $APPLIANCE_HOME/keys/proof.key.pem, made when missing.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep raw traces and logs in REPORT.traces/.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Prove that nothing gets out: install, smoke, chat, upgrade, rollback in three closed networks, every attempt recorded, a signed report.

    Needs root (or user namespaces), strace and nftables. Exit status 63 when something tried to leave.

    Examples:
        appliance prove-airgap
        appliance prove-airgap --bundle old.bundle --upgrade new.bundle --fingerprint sha256:3a7b… -o proof.json --keep
        appliance proof verify proof.json --public-key proof.pub.pem
    """
    from appliance.audit.signing import load_private_key  # the command line starts in a tenth of the time without cryptography
    from appliance.proof import envelope
    from appliance.proof.closed_networks import MODES
    from appliance.proof.prove_airgap import Wishes, ready_tools
    from appliance.proof.prove_airgap import prove_airgap as prove

    wanted = tuple(dict.fromkeys(part.strip() for part in modes.split(",")))
    if unknown := [mode for mode in wanted if mode not in MODES]:
        raise ApplianceError("invalid_request", f"--modes: unknown mode {unknown[0]!r}", hint=f"modes: {MODE_NAMES}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that scratch folders go away
    tools = ready_tools()
    signer = load_private_key(key) if key else envelope.load_or_create_key(home_folder().absolute() / "keys")
    traces = output.with_name(f"{output.name}.traces").absolute() if keep else None
    with _goods(bundle, upgrade, fingerprint, models) as goods:
        report = prove(goods, Wishes(wanted, starts, traces, _progress), tools)
    data = envelope.sign_report(report, signer)
    envelope.write_report(output.absolute(), data)
    _show(report, as_json=as_json)
    say(f"report: {output}" + (f"; raw traces: {traces}" if traces else ""))
    _end(report)


@app.callback()
def proof() -> None:
    """Reports of appliance prove-airgap."""


@app.command("verify")
def verify(
    report: Annotated[Path, typer.Argument(help="File that prove-airgap wrote.")],
    *,
    public_key: Annotated[Path | None, typer.Option(help="Public key (PEM) of who made it; default: $APPLIANCE_HOME/keys/proof.pub.pem.")] = None,
    traces: Annotated[Path | None, typer.Option(help="Folder with the raw traces (--keep): they are read and counted again.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Verify a report: signature, completeness, and that its totals follow from its records. Exit status 0 only for a complete proof of zero attempts.

    Examples:
        appliance proof verify airgap-proof.json --public-key proof.pub.pem
        appliance proof verify airgap-proof.json --traces airgap-proof.json.traces
    """
    from appliance.audit.signing import load_public_key
    from appliance.proof import envelope

    found = envelope.read_report(report, load_public_key(public_key or home_folder().absolute() / "keys" / envelope.PUBLIC_NAME))
    if traces is not None:
        envelope.check_traces(found, traces)
    _show(found, as_json=as_json)
    _end(found)
    if found["verdict"] != "sealed":
        raise ApplianceError(
            "proof_invalid", "the report is true but not complete: not all kinds of network were tried", hint="appliance prove-airgap"
        )
    say("the report holds" + (", and so do the raw traces" if traces else ""))


@contextmanager
def _goods(bundle: Path | None, upgrade: Path | None, fingerprint: str, models: Path | None) -> Iterator[Goods]:
    """The two bundles: given, or built into a folder that goes away."""
    from appliance.proof.journey import Goods

    if models is not None and not models.is_file():
        raise ApplianceError("invalid_request", f"--models: no file {models}", hint="name the site's models.toml")
    if (bundle is None) != (upgrade is None):
        raise ApplianceError(
            "invalid_request", "--bundle and --upgrade belong together", hint="give an older and a newer bundle, or none to build them"
        )
    if bundle is not None and upgrade is not None:
        yield Goods(bundle.absolute(), upgrade.absolute(), fingerprint or _known_fingerprint(), models)
        return
    with tempfile.TemporaryDirectory(prefix="appliance-proof-build-") as folder:
        say("building the embedded bundle and its upgrade (this may use the network, and is no part of the proof)")
        first, second = Path(folder) / "install.bundle", Path(folder) / "upgrade.bundle"
        built = _build(first)
        _build(second, "--sequence", str(built["sequence"] + 1))
        yield Goods(first, second, f"sha256:{built['root_fingerprint']}", models)


def _build(output: Path, *options: str) -> dict[str, Any]:
    definition = Path(__file__).resolve().parents[2] / "bundles" / "embedded.toml"
    if not definition.is_file():
        raise ApplianceError(
            "invalid_request", "there is no bundles/embedded.toml to build here", hint="give bundle files: --bundle OLDER --upgrade NEWER"
        )
    command = [
        sys.executable, "-m", "appliance.cli.main", "bundle", "build", str(definition), "-o", str(output), "--without", "os-packages", "--json", *options,
    ]  # fmt: skip
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip()[-800:]
        raise ApplianceError("unavailable", f"the bundle cannot be built: {said}", hint="build it by hand, then: prove-airgap --bundle … --upgrade …")
    built: dict[str, Any] = json.loads(ended.stdout)
    return built


def _known_fingerprint() -> str:
    """Of the station, or of the site that is installed here."""
    from appliance.bundle.keys import CHAIN_NAME, Station, station_folder

    if (station_folder() / CHAIN_NAME).is_file():
        return f"sha256:{Station.open(station_folder()).fingerprint}"
    pinned = Path(os.environ.get("APPLIANCE_SITE", "/opt/appliance")) / "trust" / "first.fingerprint"
    if pinned.is_file():
        return f"sha256:{pinned.read_text().strip().removeprefix('sha256:')}"
    raise ApplianceError("trust_invalid", "nothing here says whom to trust", hint="repeat with --fingerprint sha256:… from paper")


def _progress(mode: str, phase: str, ok: bool, seconds: float) -> None:
    say(f"{mode:<9} {phase:<17} {'ok' if ok else 'FAILED':<7} {seconds:6.1f} s")


def _show(report: Mapping[str, Any], *, as_json: bool) -> None:
    """The table on stderr; the document on stdout when asked for."""
    table = Table(
        "network",
        "phases",
        "attempts",
        "packets",
        "control",
        "start",
        title=f"{report['bundles']['install']['name']} {report['bundles']['install']['version']}",
    )
    medians = report["starts"]["median_milliseconds"]
    for entry in report["modes"]:
        passed = sum(1 for phase in entry["phases"] if phase["ok"])
        packets = sum(entry["counters"][when]["outer_packets"] for when in ("journey", "starts"))
        control = f"{len(entry['control']['caught'])} of {len(entry['control']['tried'])}" + ("" if entry["control"]["holds"] else " FAILED")
        start = f"{medians[entry['mode']]} ms" if entry["mode"] in medians else "-"
        table.add_row(entry["mode"], f"{passed} of {len(entry['phases'])}", str(len(entry["attempts"])), str(packets), control, start)
    Console(stderr=True).print(table)
    for entry in report["modes"]:
        for attempt in entry["attempts"][:20]:
            place = f"[{attempt['address']}]:{attempt['port']}" if attempt["port"] else attempt["address"]
            call = f"{attempt['call']} {attempt['family']} {attempt['protocol']} {place} × {attempt['calls']}"
            say(legible(f"attempt: {entry['mode']}: {attempt['process']} ({attempt['pid']}) {call}"))
        for phase in entry["phases"]:
            if not phase["ok"]:
                say(f"failed: {entry['mode']}: {phase['name']}: {legible(phase['detail'])}")
    say(f"attempts: {report['attempts']}   verdict: {report['verdict']}   {report['seconds']} s")
    if as_json:
        print(json.dumps(report, sort_keys=True))


def _end(report: Mapping[str, Any]) -> None:
    """Bad news is an error with its own status."""
    if report["verdict"] in _ENDINGS:
        code, message, hint = _ENDINGS[report["verdict"]]
        raise ApplianceError(code, message, hint=hint)

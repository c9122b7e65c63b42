"""``appliance audit``: read the audit log, and prove that nobody changed it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from appliance.audit.bootstrap import audit_folder, public_key_path
from appliance.audit.reading import iterate_records
from appliance.audit.signing import load_public_key
from appliance.audit.verify import Progress, Verdict, read_head, verify_log
from appliance.identity.console import home_folder, print_json, say
from appliance.kit.errors import ApplianceError

app = typer.Typer(
    name="audit",
    help="Verify, read and export the audit log.\n\nExample: appliance audit verify --public-key audit.pub.pem --log ./copy",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
PublicKey = Annotated[Path | None, typer.Option("--public-key", help="PEM file; $APPLIANCE_HOME/keys/audit.pub.pem when absent.")]
Log = Annotated[Path | None, typer.Option("--log", help="Folder of the log; $APPLIANCE_HOME/audit when absent.")]


@app.command("verify")
def verify(
    *,
    public_key: PublicKey = None,
    log: Log = None,
    expect: Annotated[str, typer.Option(help="SEQ:HASH noted down earlier (`audit head`) that must still hold.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check every record with the public key alone. Exit code 34 and the first bad record when anything is wrong.

    Examples: `appliance audit verify` · `appliance audit verify --public-key audit.pub.pem --log /mnt/copy/audit --json`
    """
    key = load_public_key(public_key or public_key_path(home_folder()))
    verdict = verify_log(log or audit_folder(home_folder()), key, expected=_expected(expect), progress=_progress(quiet=as_json))
    if as_json:
        print_json(_as_dict(verdict))
    if verdict.fault is not None:
        raise ApplianceError(
            "audit_broken",
            fault_text(verdict),
            hint="keep a copy of the folder and find out who could write to it; after a power cut with 'carry no signature',"
            " start the box once: it removes what was never acknowledged, and records that",
        )
    if not as_json:
        sys.stdout.write(f"ok: {plural(verdict.records, 'record')} in {plural(verdict.segments, 'segment')}, none altered\n")


@app.command("head")
def head(*, public_key: PublicKey = None, log: Log = None, as_json: AsJson = False) -> None:
    """Print the signed end of the log as SEQ:HASH. Keep it elsewhere: `verify --expect` then also finds a log rolled back whole.

    Example: `appliance audit head >> /mnt/usb/heads.txt`
    """
    found = read_head(log or audit_folder(home_folder()), load_public_key(public_key or public_key_path(home_folder())))
    if as_json:
        print_json({"seq": found.seq, "hash": found.hash})
    else:
        sys.stdout.write(f"{found.seq}:{found.hash}\n")


@app.command("tail")
def tail(
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many.")] = 20,
    public_key: PublicKey = None,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Show the last records.

    Example: `appliance audit tail -n 50`
    """
    folder = log or audit_folder(home_folder())
    last = read_head(folder, load_public_key(public_key or public_key_path(home_folder()))).seq
    for record in iterate_records(folder, first_seq=max(1, last - lines + 1)):
        if as_json:
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
            continue
        detail = msgspec.json.encode(record.detail).decode() if record.detail else ""
        fields = (record.seq, record.time, record.outcome, record.actor, record.action, record.resource, detail)
        sys.stdout.write("  ".join(map(str, fields)).rstrip() + "\n")


@app.command("export")
def export(
    *,
    first: Annotated[int, typer.Option("--from", min=1, help="First record number.")] = 1,
    last: Annotated[int | None, typer.Option("--to", help="Last record number.")] = None,
    log: Log = None,
) -> None:
    """Write records as JSON lines to stdout, for other tools. To hand over evidence, copy the folder and the public key.

    Example: `appliance audit export --from 1000 > records.jsonl`
    """
    for record in iterate_records(_existing(log or audit_folder(home_folder())), first_seq=first):
        if last is not None and record.seq > last:
            break
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")


def fault_text(verdict: Verdict) -> str:
    """What is wrong with the log and how much of it still holds, in words; empty when it is whole."""
    fault = verdict.fault
    if fault is None:
        return ""
    if verdict.head is None or fault.seq == 0:
        return fault.message
    held = {0: "no record holds", 1: "record 1 holds"}.get(verdict.records, f"records 1 to {verdict.records} hold")
    return f"{fault.message}; {held}, record {fault.seq} is the first bad one"


def plural(count: int, noun: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise ApplianceError("not_found", f"no audit log in {folder}", hint="name the folder with --log")
    return folder


def _expected(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    seq, _, digest = text.partition(":")
    if not seq.isdecimal() or len(digest) != 64:
        raise ApplianceError("invalid_request", "--expect takes SEQ:HASH", hint="as `appliance audit head` prints it")
    return int(seq), digest


def _progress(*, quiet: bool) -> Progress | None:
    if quiet or not sys.stderr.isatty():
        return None

    def show(done_bytes: int, total_bytes: int) -> None:
        sys.stderr.write(f"\r{done_bytes / max(1, total_bytes):4.0%} of {total_bytes / 1e6:.0f} MB")
        if done_bytes >= total_bytes:
            say("")

    return show


def _as_dict(verdict: Verdict) -> dict[str, object]:
    fault = verdict.fault
    return {
        "ok": fault is None,
        "records": verdict.records,
        "segments": verdict.segments,
        "head": None if verdict.head is None else {"seq": verdict.head.seq, "hash": verdict.head.hash},
        "fault": None if fault is None else {"seq": fault.seq, "kind": fault.kind, "message": fault.message},
    }

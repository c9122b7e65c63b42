"""``appliance models import``, ``add`` and ``export``: models in and out of the hub of this home."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.home import Home
from appliance.hub.aliasing import point_alias
from appliance.hub.fetching import ALLOWED, fetch_repository, parse_repository, refuse_on_site
from appliance.hub.folder_store import FolderSnapshotStore
from appliance.hub.importing import ImportRequest, import_model, required_signer
from appliance.hub.model_sources import ModelSource, look_at
from appliance.hub.model_spec import KINDS, Kind
from appliance.hub.model_trust import ModelTrust, open_signed, read_public_key
from appliance.hub.models_toml import load_home_models
from appliance.hub.ollama_store import is_ollama_store, look_at_ollama
from appliance.hub.roots import hub_roots
from appliance.hub.snapshot_files import remove_tree
from appliance.hub.snapshot_store import SnapshotStore
from appliance.hub.snapshots import Snapshot
from appliance.hub.stored_snapshots import export_snapshot, import_stored, stored_paths, stored_size
from appliance.identity.console import print_json, say
from appliance.kit.errors import ApplianceError

_IMPORT_EXAMPLES = """
Examples:

  appliance models import qwen3-8b-q4.gguf --kind llm --name qwen3-8b --alias default --license Apache-2.0 --languages en,ru

  appliance models import ~/.cache/huggingface/hub/models--intfloat--e5 --kind embed --name e5 --languages en

  appliance models import /media/ollama --pick llama3.2:3b --kind llm --name llama

  appliance models import s3://models/site --pick llm/qwen3-8b-v1 --s3-endpoint http://10.0.0.5:8333 --s3-keys s3.keys
"""
_ADD_EXAMPLES = """
Examples:

  appliance models add Qwen/Qwen3-8B --kind llm --name qwen3-8b

  appliance models add bartowski/Qwen3-8B-GGUF@main --kind llm --name qwen3-8b-q4 --include '*Q4_K_M.gguf'
"""
_EXPORT_EXAMPLES = """
Examples:

  appliance models export llm.default --to /media/stick/models

  appliance models export embed/minilm-v1 --to s3://models/site --s3-endpoint http://10.0.0.5:8333 --s3-keys s3.keys
"""
KindOption = Annotated[str, typer.Option("--kind", help="embed, llm or rerank.")]
NameOption = Annotated[str, typer.Option("--name", help="Folder name in the hub, without the version.")]
AliasOption = Annotated[str, typer.Option("--alias", help="Alias that means it from now on; default: the name, when there is no such alias yet.")]
LicenseOption = Annotated[str, typer.Option(help="SPDX expression of the weights.")]
LanguagesOption = Annotated[str, typer.Option(help="ISO 639-1 codes, comma between: en,ru.")]
ContextOption = Annotated[int, typer.Option(min=0, help="Longest input in tokens; default: what the model says.")]
DimensionsOption = Annotated[int, typer.Option(min=0, help="Length of vectors; default: what the model says.")]
VersionOption = Annotated[str, typer.Option(help="Semantic version of the weights, 1.2.0.")]
EndpointOption = Annotated[str, typer.Option(envvar="APPLIANCE_S3_ENDPOINT", help="Address of the S3 server, http://HOST:PORT.")]
RegionOption = Annotated[str, typer.Option(envvar="APPLIANCE_S3_REGION", help="Region, when the server wants one.")]
KeysOption = Annotated[Path | None, typer.Option(envvar="APPLIANCE_S3_KEYS_FILE", help="File of two lines: access key, secret key.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@dataclass(frozen=True, slots=True)
class S3Options:
    """Where an ``s3://`` address is."""

    endpoint: str
    region: str
    keys: Path | None


def register(app: typer.Typer) -> None:
    """Add the verbs of this file to ``appliance models``."""
    app.command("import", epilog=_IMPORT_EXAMPLES)(import_verb)
    app.command("add", epilog=_ADD_EXAMPLES)(add_verb)
    app.command("export", epilog=_EXPORT_EXAMPLES)(export_verb)


def import_verb(
    source: Annotated[str, typer.Argument(help="HF folder, GGUF file, ONNX folder, Ollama store, exported folder, or s3://BUCKET/PREFIX.")],
    kind: KindOption = "",
    name: NameOption = "",
    alias: AliasOption = "",
    pick: Annotated[str, typer.Option(help="Which one, when there are several: NAME:TAG (Ollama) or KIND/NAME-vN (exported).")] = "",
    license_name: Annotated[str, typer.Option("--license", help="SPDX expression of the weights.")] = "",
    languages: LanguagesOption = "",
    max_context: ContextOption = 0,
    dimensions: DimensionsOption = 0,
    version: VersionOption = "",
    trust_key: Annotated[Path | None, typer.Option(help="Public key (PEM) of the publisher of an exported snapshot.")] = None,
    s3_endpoint: EndpointOption = "",
    s3_region: RegionOption = "",
    s3_keys: KeysOption = None,
    as_json: Json = False,
) -> None:
    """Take a model into the hub: checked, signed, immutable. Weights that are pickles are refused."""
    home = Home.default().path
    store = _store(source, S3Options(s3_endpoint, s3_region, s3_keys))
    if store is not None:
        trust = ModelTrust.load(home).with_keys(*([read_public_key(trust_key)] if trust_key else []))
        path = _picked(store, pick)
        with _progress("importing", stored_size(store, path)) as progress:
            snapshot = import_stored(home, store, path, trust, progress, name=name)
        _finish(home, snapshot, alias, (), as_json=as_json)
        return
    request = _request(kind, name, license_name, languages, max_context, dimensions, version)
    place = Path(source).expanduser()
    _import(home, look_at_ollama(place, pick) if is_ollama_store(place) else look_at(place, kind), request, alias, as_json=as_json)


def add_verb(
    repository: Annotated[str, typer.Argument(help="OWNER/NAME or OWNER/NAME@REVISION.")],
    kind: KindOption = "",
    name: NameOption = "",
    alias: AliasOption = "",
    endpoint: Annotated[str, typer.Option(envvar="HF_ENDPOINT", help="Address of the hub, when it is not the public one.")] = "",
    include: Annotated[list[str] | None, typer.Option(help="Only files like this; repeat for more.")] = None,
    license_name: Annotated[str, typer.Option("--license", help="SPDX expression of the weights.")] = "",
    languages: LanguagesOption = "",
    max_context: ContextOption = 0,
    dimensions: DimensionsOption = 0,
    version: VersionOption = "",
    as_json: Json = False,
) -> None:
    """Fetch a model from a Hugging Face hub on a connected station, then import it. Refused on a sealed site."""
    refuse_on_site()
    wanted = parse_repository(repository)
    request = _request(kind, name or wanted.name.rpartition("/")[2].lower(), license_name, languages, max_context, dimensions, version)
    home = Home.default().path
    required_signer(home)
    staging = home / "models" / ".fetch" / hashlib.sha256(f"{repository} {include}".encode()).hexdigest()[:16]
    staging.mkdir(parents=True, exist_ok=True, mode=0o700)
    say(f"fetching {repository}")
    commit = fetch_repository(wanted, staging, endpoint, (*include, "*.json", "LICENSE*", "README*") if include else ALLOWED)
    source = look_at(staging, kind).with_origin({"repository": wanted.name, "revision": commit or wanted.revision})
    _import(home, source, request, alias, as_json=as_json)
    remove_tree(staging)


def export_verb(
    model: Annotated[str, typer.Argument(help="KIND.ALIAS, or a snapshot KIND/NAME-vN.")],
    to: Annotated[str, typer.Option("--to", help="A folder, or s3://BUCKET/PREFIX.")],
    s3_endpoint: EndpointOption = "",
    s3_region: RegionOption = "",
    s3_keys: KeysOption = None,
    as_json: Json = False,
) -> None:
    """Write a snapshot with its signature to a folder or bucket, to be imported elsewhere. Files that are there are not sent again."""
    home = Home.default().path
    path, digest = _snapshot_of(home, model)
    snapshot = open_signed(hub_roots(home), path, digest, ModelTrust.load(home))
    store = _store(to, S3Options(s3_endpoint, s3_region, s3_keys)) or FolderSnapshotStore(Path(to).expanduser())
    with _progress("exporting", sum(entry.size_bytes for entry in snapshot.index.files.values())) as progress:
        sent = export_snapshot(store, snapshot, progress)
    if as_json:
        print_json({"snapshot": path, "digest": f"sha256:{snapshot.digest}", "to": to, "sent_bytes": sent})
        return
    say(f"{path} is in {to} ({sent} bytes sent)")


def _import(home: Path, source: ModelSource, request: ImportRequest, alias: str, *, as_json: bool) -> None:
    with _progress("importing", source.size_bytes) as progress:
        snapshot = import_model(home, source, request, progress)
    _finish(home, snapshot, alias, source.left_out, as_json=as_json)


def _finish(home: Path, snapshot: Snapshot, alias: str, left_out: tuple[str, ...], *, as_json: bool) -> None:
    kind = next(known for known in KINDS if known == snapshot.index.kind)
    taken = {spec.alias for spec in load_home_models(home).of_kind(kind)}
    chosen = alias or ("" if snapshot.index.name in taken else snapshot.index.name)
    if chosen:
        point_alias(home, kind, chosen, snapshot.label)
    if as_json:
        print_json(
            {
                "snapshot": snapshot.label,
                "digest": f"sha256:{snapshot.digest}",
                "alias": f"{kind}.{chosen}" if chosen else None,
                "left_out": list(left_out),
            }
        )
        return
    say(f"{snapshot.label} is in the hub, signed; {len(left_out)} files left out" if left_out else f"{snapshot.label} is in the hub, signed")
    say(f"{kind}.{chosen} means it now" if chosen else f"use it with: appliance models alias {kind}.{snapshot.index.name} {snapshot.label}")


def _request(kind: str, name: str, license_name: str, languages: str, max_context: int, dimensions: int, version: str) -> ImportRequest:
    from appliance.hub import model_fields as fields

    known: Kind | None = next((one for one in KINDS if one == kind), None)
    if known is None or not name:
        raise ApplianceError("invalid_request", "a model needs --kind and --name", hint="--kind llm --name qwen3-8b; kinds: " + ", ".join(KINDS))
    try:
        codes = fields.languages([code.strip() for code in languages.split(",") if code.strip()])
        number = fields.version(version) if version else ""
        licence = fields.text(license_name) if license_name else ""
    except ValueError as exc:
        raise ApplianceError("invalid_request", str(exc), hint="appliance models import --help") from exc
    return ImportRequest(known, name, licence, codes, max_context, dimensions, number)


def _store(place: str, s3: S3Options) -> SnapshotStore | None:
    if place.startswith("s3://"):
        from appliance.hub.s3_store import S3SnapshotStore, s3_place  # the client is heavy, and only this needs it

        if not s3.endpoint or s3.keys is None:
            raise ApplianceError("invalid_request", "an s3:// address needs --s3-endpoint and --s3-keys", hint="appliance models export --help")
        return S3SnapshotStore(s3_place(place, s3.endpoint, s3.region, s3.keys))
    folder = Path(place).expanduser()
    return FolderSnapshotStore(folder) if (folder / "snapshots").is_dir() and (folder / "signatures").is_dir() else None


def _picked(store: SnapshotStore, pick: str) -> str:
    paths = stored_paths(store)
    chosen = [path for path in paths if path == pick] if pick else paths
    if len(chosen) == 1:
        return chosen[0]
    what = "no such snapshot" if pick else "several snapshots, or none,"
    raise ApplianceError("invalid_request", f"{what} in the store", hint=f"choose one with --pick; there: {', '.join(paths[:20]) or 'none'}")


def _snapshot_of(home: Path, model: str) -> tuple[str, str]:
    if re.fullmatch(r"[a-z]+/.+-v\d+", model):
        return model, ""
    found = [spec for spec in load_home_models(home).specs if model in {spec.alias, f"{spec.kind}.{spec.alias}"} and spec.path]
    if len(found) != 1:
        raise ApplianceError("model_not_found", f"no one model with a snapshot is named {model!r}", hint="appliance models list; say KIND.ALIAS")
    return found[0].path, found[0].digest


@contextmanager
def _progress(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr when somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total_bytes)
        yield lambda count: bars.advance(task, count)

"""Import: every form becomes a signed snapshot, once; an alias points at it; what nobody needs is collected."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.hub.aliasing import point_alias, split_alias
from appliance.hub.collecting import collect, read_pins, set_pin
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.leases import in_use, lease
from appliance.hub.model_sources import look_at
from appliance.hub.model_spec import Kind, ModelSpec
from appliance.hub.model_trust import ModelTrust, open_signed
from appliance.hub.models_file import write_entry
from appliance.hub.models_toml import load_home_models, load_models
from appliance.hub.ollama_store import is_ollama_store, look_at_ollama
from appliance.hub.roots import GENERATION_VARIABLE
from appliance.hub.snapshots import Snapshot, open_snapshot, read_verified, verify
from appliance.kit.errors import ApplianceError
from tests.unit.model_files import ONNX, gguf, write_hf, write_ollama, write_onnx
from tests.unit.model_samples import write_tiny

STRANGER = 65534


@pytest.fixture(autouse=True)
def station(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GENERATION_VARIABLE, raising=False)


def take(home: Path, place: Path, kind: Kind = "llm", name: str = "tiny", **told: object) -> Snapshot:
    snapshot = import_model(home, look_at(place, kind), ImportRequest(kind, name, **told))  # type: ignore[arg-type]
    open_signed(home / "models", snapshot.label, snapshot.digest, ModelTrust.load(home))
    verify(snapshot)
    return snapshot


def code_of(act: object) -> str:
    with pytest.raises(ApplianceError) as caught:
        act()  # type: ignore[operator]
    assert caught.value.hint
    return caught.value.code


def test_a_gguf_file_says_its_context_and_name(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(gguf(context=8192))
    snapshot = take(tmp_path / "home", tmp_path / "x.gguf", languages=("en", "ru"), license="MIT", version="1.2.0")
    assert snapshot.label == "llm/tiny-v1"
    spec = point_alias(tmp_path / "home", "llm", "chat", snapshot.label).after
    assert (spec.engine, spec.format, spec.max_context, spec.languages) == ("llama.cpp", "gguf", 8192, ("en", "ru"))
    assert (spec.license, spec.version, spec.is_served) == ("MIT", "1.2.0", True)
    assert load_home_models(tmp_path / "home").get("llm", "chat") == spec


def test_a_hugging_face_folder_is_taken_as_it_is_without_pictures_and_hidden_files(tmp_path: Path) -> None:
    source = look_at(write_hf(tmp_path / "hf"))
    assert sorted(source.left_out) == [".gitattributes", "card.png"]
    snapshot = take(tmp_path / "home", tmp_path / "hf")
    assert sorted(snapshot.index.files) == ["README.md", "config.json", "model-00001-of-00001.safetensors", "tokenizer.json"]
    assert point_alias(tmp_path / "home", "llm", "hf", snapshot.label).after.engine == "vllm"


def test_the_cache_of_huggingface_hub_is_followed_inside_itself(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    blobs = write_hf(cache / "blobs")
    for commit in ("a" * 40, "b" * 40):
        (cache / "snapshots" / commit).mkdir(parents=True)
        for file in blobs.iterdir():
            (cache / "snapshots" / commit / file.name).symlink_to(Path("../../blobs") / file.name)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("b" * 40)
    assert "config.json" in take(tmp_path / "home", cache).index.files
    assert code_of(lambda: look_at(cache / "snapshots" / ("a" * 40))) == "model_refused"  # its links lead out of what was named
    (cache / "refs" / "main").unlink()
    assert code_of(lambda: look_at(cache)) == "model_refused"


def test_an_onnx_folder_becomes_an_embedding_model_with_its_dimensions(tmp_path: Path) -> None:
    snapshot = take(tmp_path / "home", write_onnx(tmp_path / "onnx"), "embed", "e5", languages=("en",))
    assert read_verified(snapshot, "model.onnx") == ONNX
    spec = point_alias(tmp_path / "home", "embed", "e5", snapshot.label).after
    assert (spec.engine, spec.dimensions, spec.max_context, spec.is_served) == ("onnx", 24, 512, True)


def test_a_hugging_face_folder_becomes_an_encoder_or_a_reranker_for_nodes_with_torch(tmp_path: Path) -> None:
    for kind, dimensions in (("embed", 8), ("rerank", 0)):
        snapshot = take(tmp_path / "home", write_hf(tmp_path / kind), kind, "bge", languages=("en",))  # type: ignore[arg-type]
        spec = point_alias(tmp_path / "home", kind, "bge", snapshot.label).after  # type: ignore[arg-type]
        assert (spec.engine, spec.format, spec.dimensions, spec.max_context) == ("sentence-transformers", "hf", dimensions, 2048)
        assert load_home_models(tmp_path / "home").get(kind, "bge") == spec  # type: ignore[arg-type]


def test_an_embedding_model_whose_size_nobody_says_is_asked_for(tmp_path: Path) -> None:
    (write_onnx(tmp_path / "onnx") / "config.json").unlink()
    assert code_of(lambda: take(tmp_path / "home", tmp_path / "onnx", "embed")) == "invalid_request"
    take(tmp_path / "home", tmp_path / "onnx", "embed", dimensions=24, max_context=128)


def test_an_ollama_store_gives_the_model_that_was_picked(tmp_path: Path) -> None:
    store = write_ollama(tmp_path / "store", "1b", "3b")
    assert is_ollama_store(store)
    assert code_of(lambda: look_at_ollama(store)) == "invalid_request"
    source = look_at_ollama(store, "tiny:3b")
    snapshot = import_model(tmp_path / "home", source, ImportRequest("llm", "tiny"))
    assert sorted(snapshot.index.files) == ["LICENSE", "model.gguf", "params.json", "template.txt"]
    assert read_verified(snapshot, "template.txt") == b"{{ .Prompt }}"
    assert snapshot.index.created_from["ollama"] == "tiny:3b"


def test_an_ollama_blob_that_has_not_its_digest_is_refused(tmp_path: Path) -> None:
    store = write_ollama(tmp_path / "store")
    source = look_at_ollama(store)
    data = bytearray(source.files["model.gguf"].read_bytes())
    data[-1] ^= 1
    source.files["model.gguf"].write_bytes(data)
    assert code_of(lambda: import_model(tmp_path / "home", source, ImportRequest("llm", "tiny"))) == "model_refused"
    assert not list((tmp_path / "home" / "models" / "llm").iterdir())


def test_the_same_files_are_one_snapshot_and_others_the_next_version(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert take(home, write_hf(tmp_path / "hf")).label == "llm/tiny-v1"
    assert take(home, tmp_path / "hf").label == "llm/tiny-v1"
    assert take(home, write_hf(tmp_path / "hf", marker="changed")).label == "llm/tiny-v2"
    assert sorted(entry.name for entry in (home / "models" / "llm").iterdir()) == ["tiny-v1", "tiny-v2"]


def test_a_kind_takes_only_forms_that_its_engines_read(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(gguf())
    write_hf(tmp_path / "hf")
    assert code_of(lambda: take(tmp_path / "home", tmp_path / "x.gguf", "embed")) == "model_refused"
    assert code_of(lambda: take(tmp_path / "home", write_onnx(tmp_path / "onnx"), "llm")) == "model_refused"
    assert code_of(lambda: take(tmp_path / "home", tmp_path / "hf", name="../x")) == "invalid_request"
    assert code_of(lambda: take(tmp_path / "home", tmp_path / "hf", name="x-v2")) == "invalid_request"


def test_a_sealed_site_without_a_key_imports_nothing_unsigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GENERATION_VARIABLE, str(tmp_path / "generations" / "1"))
    assert code_of(lambda: take(tmp_path / "home", write_hf(tmp_path / "hf"))) == "model_refused"


def test_switching_an_alias_keeps_the_rest_of_the_file_and_the_history(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for marker in ("one", "two"):
        take(home, write_hf(tmp_path / "hf", marker=marker))
    text = '# mine\nschema_version = 1\n\n# the other one\n[llm.other]  # stays\nengine = "reader"\n\n# below\n[rerank.default]\nengine = "lexical"\n'
    (home / "models.toml").write_text(text)
    point_alias(home, "llm", "chat", "llm/tiny-v1")
    change = point_alias(home, "llm", "chat", "llm/tiny-v2")
    assert change.before is not None
    assert (change.before.path, change.after.path) == ("llm/tiny-v1", "llm/tiny-v2")
    written = (home / "models.toml").read_text()
    assert written.startswith(text)
    assert '# was: path = "llm/tiny-v1"' in written
    point_alias(home, "llm", "other", "llm/tiny-v1")
    assert "# below\n[rerank.default]" in (home / "models.toml").read_text()
    assert {spec.alias: spec.path for spec in load_models(home / "models.toml").of_kind("llm")} == {"chat": "llm/tiny-v2", "other": "llm/tiny-v1"}
    assert load_home_models(home).get("rerank", "default").engine == "lexical"


def test_a_file_that_cannot_be_changed_safely_is_left_to_its_author(tmp_path: Path) -> None:
    home = tmp_path / "home"
    take(home, write_hf(tmp_path / "hf"))
    text = 'schema_version = 1\nllm = { chat = { engine = "reader" } }\n'
    (home / "models.toml").write_text(text)
    assert code_of(lambda: point_alias(home, "llm", "chat", "llm/tiny-v1")) == "models_file_invalid"
    assert (home / "models.toml").read_text() == text


@pytest.mark.parametrize(("alias", "path"), [("embed.x", "llm/tiny-v1"), ("llm.x", "llm/../../x-v1"), ("llm.two words", "llm/tiny-v1")])
def test_an_alias_that_cannot_be_is_refused(tmp_path: Path, alias: str, path: str) -> None:
    kind, name = split_alias(alias)
    assert code_of(lambda: point_alias(tmp_path, kind, name, path)) == "invalid_request"


def test_an_alias_does_not_point_at_what_is_absent_altered_or_unsigned(tmp_path: Path) -> None:
    write_tiny(tmp_path / "models")  # signed by a key that this home does not know
    assert code_of(lambda: point_alias(tmp_path, "embed", "x", "embed/tiny-v1")) == "snapshot_unsigned"
    assert code_of(lambda: point_alias(tmp_path, "embed", "x", "embed/tiny-v2")) == "snapshot_missing"
    assert not (tmp_path / "models.toml").exists()


def test_collecting_spares_what_an_alias_names_what_is_pinned_and_what_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for marker in "abcd":
        take(home, write_hf(tmp_path / "hf", marker=marker))
    point_alias(home, "llm", "chat", "llm/tiny-v1")
    set_pin(home, "llm/tiny-v2", pinned=True)
    held = lease(open_snapshot(home / "models", "llm/tiny-v3"))
    assert {entry.path: entry.verdict for entry in collect(home, dry_run=True)} == {
        "llm/tiny-v1": "alias", "llm/tiny-v2": "pinned", "llm/tiny-v3": "in_use", "llm/tiny-v4": "removed",
    }  # fmt: skip
    assert (home / "models" / "llm" / "tiny-v4").is_dir()
    collect(home)
    assert sorted(entry.name for entry in (home / "models" / "llm").iterdir()) == ["tiny-v1", "tiny-v2", "tiny-v3"]
    for path, code in (
        ("llm/tiny-v1", "conflict"),
        ("llm/tiny-v2", "conflict"),
        ("llm/tiny-v3", "model_in_use"),
        ("llm/tiny-v4", "snapshot_missing"),
    ):
        assert code_of(lambda path=path: collect(home, [path])) == code
    held.close()
    assert [entry.verdict for entry in collect(home, ["llm/tiny-v3"])] == ["removed"]
    set_pin(home, "llm/tiny-v2", pinned=False)
    assert read_pins(home) == set()


def test_a_broken_list_of_pins_stops_the_collector(tmp_path: Path) -> None:
    write_tiny(tmp_path / "models")
    (tmp_path / "models" / "pins.json").write_text('{"schema_version": 2, "pinned": []}')
    assert code_of(lambda: collect(tmp_path)) == "home_invalid"
    assert (tmp_path / "models" / "embed" / "tiny-v1").is_dir()


HOLD = """
import sys
from pathlib import Path
from appliance.hub.leases import lease
from appliance.hub.snapshots import open_snapshot
held = lease(open_snapshot(Path(sys.argv[1]), "embed/tiny-v1"))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_collector_refuses_while_another_process_reads_and_not_after_it_was_killed(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path / "models")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "models")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"held\n"
        assert in_use(snapshot.folder)
        with pytest.raises(ApplianceError, match="embed/tiny-v1") as caught:
            collect(tmp_path, ["embed/tiny-v1"])
        assert caught.value.code == "model_in_use"
        assert [entry.verdict for entry in collect(tmp_path)] == ["in_use"]
        verify(snapshot)
        reader.kill()
    assert not in_use(snapshot.folder)
    assert [entry.verdict for entry in collect(tmp_path)] == ["removed"]
    assert code_of(lambda: lease(snapshot)) == "snapshot_missing"


def test_a_lease_works_on_a_read_only_hub(tmp_path: Path) -> None:
    snapshot = write_tiny(tmp_path)
    for folder in (snapshot.folder, snapshot.folder.parent, tmp_path):
        folder.chmod(0o555)
    try:
        with lease(snapshot):
            assert in_use(snapshot.folder)
        assert not in_use(snapshot.folder)
    finally:
        for folder in (tmp_path, snapshot.folder.parent, snapshot.folder):
            folder.chmod(0o755)


def test_a_snapshot_that_is_replaced_while_it_is_read_stays_readable(tmp_path: Path) -> None:
    first = write_tiny(tmp_path)
    with lease(first):
        write_tiny(tmp_path)
        write_tiny(tmp_path)
        assert sorted(entry.name for entry in (tmp_path / "embed").iterdir()) == ["tiny-v1", "tiny-v1.replaced", "tiny-v1.replaced-2"]
        assert code_of(lambda: lease(Snapshot(tmp_path / "embed" / "gone-v1", first.index, first.digest))) == "snapshot_missing"


def test_loaders_and_the_collector_race_without_a_half_read_snapshot(tmp_path: Path) -> None:
    """Readers lease, then read all files, as fast as they can while the snapshot is written and collected again and again."""
    wrong: list[str] = []
    done = threading.Event()

    def read_on() -> None:
        while not done.wait(0.002):  # a gap, or the collector never finds it free
            try:
                snapshot = open_snapshot(tmp_path / "models", "embed/tiny-v1")
                with lease(snapshot):
                    verify(snapshot)
            except ApplianceError as error:
                if error.code != "snapshot_missing":
                    wrong.append(str(error))

    readers = [threading.Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    removed, refused, deadline = 0, 0, time.monotonic() + 30
    try:
        while removed < 2 or not refused:
            assert time.monotonic() < deadline
            if not (tmp_path / "models" / "embed" / "tiny-v1").exists():
                write_tiny(tmp_path / "models")
            verdicts = [entry.verdict for entry in collect(tmp_path)]
            removed, refused = removed + verdicts.count("removed"), refused + verdicts.count("in_use")
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == []


def test_files_that_root_makes_belong_to_the_owner_of_the_home(tmp_path: Path, open_place: Path) -> None:
    home = owned_home(open_place)
    take(home, write_hf(tmp_path / "hf"))
    point_alias(home, "llm", "chat", "llm/tiny-v1")
    made = (home / "models.toml", home / "models" / "llm", home / "models" / "llm" / "tiny-v1")
    assert {path.stat().st_uid for path in made} == {STRANGER}


def test_root_imports_what_only_root_may_read_into_the_home_of_a_user(tmp_path: Path, open_place: Path) -> None:
    source = write_hf(tmp_path / "hf")
    for path in [source, *source.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert take(owned_home(open_place), source).label == "llm/tiny-v1"
    assert os.geteuid() == 0, "root is root again"


def test_links_that_the_user_of_the_box_planted_lead_root_nowhere(open_place: Path) -> None:
    """Locks, pins and left-overs are in folders of the service user: whatever stands there, nothing outside the home changes."""
    home, precious = owned_home(open_place), open_place / "precious"
    (precious / "lib").mkdir(parents=True)
    (precious / "shadow").write_text("root:x")
    for path in (precious, precious / "lib"):
        path.chmod(0o755)
    (home / "models" / "llm").mkdir()
    os.chown(home / "models" / "llm", STRANGER, STRANGER)
    (home / "models" / "llm" / ".unfinished-a").symlink_to(precious)
    (home / "models" / ".pins.json.tmp").symlink_to(precious / "shadow")
    collect(home)
    assert not os.path.lexists(home / "models" / "llm" / ".unfinished-a")
    for name in ("models/.setup.lock", ".models.lock"):
        (home / name).unlink(missing_ok=True)
        (home / name).symlink_to(precious / "shadow")
    for change in (lambda: set_pin(home, "llm/gone-v1", pinned=False), lambda: write_entry(home, ModelSpec(kind="llm", alias="a", engine="e"))):
        with pytest.raises(ApplianceError) as refused:
            change()
        assert refused.value.code == "home_invalid"
    assert (precious / "shadow").read_text() == "root:x"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (precious, precious / "lib")} == {0o755}


def test_a_folder_of_the_hub_that_is_a_link_lets_root_write_nothing_elsewhere(tmp_path: Path, open_place: Path) -> None:
    home, elsewhere = owned_home(open_place), open_place / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (home / "models" / "llm").symlink_to(elsewhere)
    with pytest.raises(ApplianceError):
        take(home, write_hf(tmp_path / "hf"))
    assert list(elsewhere.iterdir()) == []


def owned_home(place: Path) -> Path:
    """A home of another user, whom the folders above let through."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files for somebody else")
    home = place / "home"
    (home / "models").mkdir(parents=True)
    for folder in (home, home / "models"):
        os.chown(folder, STRANGER, STRANGER)
    return home


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user may pass through; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)

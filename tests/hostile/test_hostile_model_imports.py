"""Attacks on the way into the hub: pickles under any name, broken headers, links, kills, and models larger than memory."""

from __future__ import annotations

import io
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.hub.gguf_header import check_gguf
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
from appliance.hub.models_toml import load_models
from appliance.hub.roots import GENERATION_VARIABLE
from appliance.hub.safetensors_header import MAX_HEADER_BYTES, check_safetensors
from appliance.hub.snapshots import open_snapshot, verify
from appliance.hub.weight_files import looks_like_pickle
from appliance.kit.errors import ApplianceError
from tests.unit.model_files import ONNX, gguf, safetensors, write_hf

SLOW_IMPORT = """
import sys, time
from pathlib import Path
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
import_model(Path(sys.argv[1]), look_at(Path(sys.argv[2])), ImportRequest("llm", "tiny"), lambda count: (print("copying", flush=True), time.sleep(60)))
"""
SPARSE_IMPORT = """
import re, sys
from pathlib import Path
from appliance.hub.importing import ImportRequest, import_model
from appliance.hub.model_sources import look_at
snapshot = import_model(Path(sys.argv[1]), look_at(Path(sys.argv[2])), ImportRequest("llm", "huge"))
print(snapshot.label, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""
SWITCHING = """
import itertools, sys
from pathlib import Path
from appliance.hub.aliasing import point_alias
for number in itertools.count():
    point_alias(Path(sys.argv[1]), "llm", "chat", f"llm/tiny-v{number % 2 + 1}")
    print("switched", flush=True)
"""


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("touch /tmp/appliance-pickle-was-run",)


@pytest.fixture(autouse=True)
def station(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GENERATION_VARIABLE, raising=False)


def refusal(home: Path, place: Path) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        import_model(home, look_at(place, "llm"), ImportRequest("llm", "tiny"))
    assert caught.value.code == "model_refused"
    assert caught.value.hint
    assert not list((home / "models").glob("*/*"))
    return caught.value


def zipped(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr(name, content)
    return archive.getvalue()


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "vocab.pkl", "weights.npz", "arrays.npy", "MODEL.BIN", "sub/x.joblib"]
)
def test_what_may_be_a_pickle_is_refused_by_name(tmp_path: Path, name: str) -> None:
    file = write_hf(tmp_path / "hf") / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"harmless")
    error = refusal(tmp_path / "home", tmp_path / "hf")
    assert name in error.message
    assert "safetensors" in error.hint


@pytest.mark.parametrize("name", ["config.json", "notes.txt", "LICENSE", "model.onnx", "spiece.model", "model.onnx_data", "chat.jinja", "extra.gguf"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_under_another_name_is_refused_by_content_and_not_run(tmp_path: Path, name: str, protocol: int) -> None:
    (write_hf(tmp_path / "hf") / name).write_bytes(pickle.dumps(Bomb(), protocol))
    assert name in refusal(tmp_path / "home", tmp_path / "hf").message
    assert not Path("/tmp/appliance-pickle-was-run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", zipped("archive/data.pkl", pickle.dumps(Bomb()))),
        ("model.safetensors", pickle.dumps(Bomb())),
        ("model.safetensors", zipped("archive/data.pkl", b"x")),
        ("modeling_evil.py", b"import os"),
        ("run.sh", b"#!/bin/sh"),
        ("README", b"#!/bin/sh\nrm -rf /"),
        ("lib.txt", b"\x7fELF" + bytes(100)),
        ("text.txt", b"text\0with zeros"),
        ("text.json", b"\xff\xfe\x00"),
        ("name with blanks.txt", b"x"),
        ("unknown.xyz", b"x"),
        ("model-2.safetensors", safetensors(tail=b"hidden behind the tensors")),
        ("model-2.gguf", gguf()[:-65]),
        ("weights.gguf", b"GGUF" + bytes(100)),
        ("Config.json", b"{}"),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (write_hf(tmp_path / "hf") / name).write_bytes(content)
    assert name in refusal(tmp_path / "home", tmp_path / "hf").message


def test_links_out_of_the_source_pipes_and_linked_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    for number, make in enumerate(
        (
            lambda folder: (folder / "notes.txt").symlink_to(tmp_path / "secret.txt"),
            lambda folder: (folder / "notes.txt").symlink_to("/etc/hostname-that-is-not-there"),
            lambda folder: os.mkfifo(folder / "notes.txt"),
            lambda folder: (folder / "sub").symlink_to(tmp_path),
        )
    ):
        make(write_hf(tmp_path / f"hf{number}"))
        refusal(tmp_path / "home", tmp_path / f"hf{number}")


@pytest.mark.parametrize(
    "head", [b"", b"\x80", b"\x80\x04", b"\x80\x04" + bytes(200), ONNX[:100], gguf()[:100]], ids=["empty", "one", "two", "zeros", "onnx", "gguf"]
)
def test_what_is_no_pickle_is_not_taken_for_one(head: bytes) -> None:
    assert not looks_like_pickle(head)


HEADERS = st.one_of(
    st.binary(max_size=400),
    st.binary(max_size=200).map(lambda tail: gguf()[:24] + tail),
    st.tuples(st.integers(0, len(gguf()) - 1), st.integers(0, 255)).map(lambda at: gguf()[: at[0]] + bytes([at[1]]) + gguf()[at[0] + 1 :]),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)).map(lambda counts: b"GGUF" + struct.pack("<IQQ", 3, *counts) + gguf()[24:]),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)).map(
        lambda value: safetensors(header=repr(value).replace("'", '"').encode())
    ),
    st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "F4", "X", 1]), "shape": st.lists(st.integers(-1, 2**70), max_size=20), "data_offsets": st.lists(st.integers(-1, 2**65), max_size=3)}).map(
        lambda entry: safetensors(header=('{"w":' + repr(entry).replace("'", '"') + "}").encode())
    ),
)  # fmt: skip


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(HEADERS)
def test_no_header_crashes_hangs_or_eats_memory(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for check in (check_gguf, check_safetensors):
        try:
            check(io.BytesIO(data), len(data))
        except ValueError:
            continue
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("unit", [b"[],", b'{"a":{}},', b"[[[[[[[[[[", b"0,", b'"",'])
def test_the_largest_header_that_is_read_stays_in_bounds(unit: bytes) -> None:
    header = b"[" + unit * (MAX_HEADER_BYTES // len(unit) - 2)
    data = len(header).to_bytes(8, "little") + header
    started = time.process_time()  # of this process: the machine may be busy with others
    with pytest.raises(ValueError, match="header"):
        check_safetensors(io.BytesIO(data), len(data))
    assert time.process_time() - started < 10


@pytest.mark.parametrize("field", range(2))
def test_counts_beyond_reason_are_refused_before_anything_is_made_of_them(field: int) -> None:
    counts = [1, 6]
    counts[field] = 2**40
    with pytest.raises(ValueError, match="claims"):
        check_gguf(io.BytesIO(b"GGUF" + struct.pack("<IQQ", 3, *counts) + gguf()[24:]), 10**12)


def test_an_import_that_was_killed_leaves_nothing_visible_and_the_next_one_works(tmp_path: Path) -> None:
    home, place = tmp_path / "home", write_hf(tmp_path / "hf")
    with subprocess.Popen([sys.executable, "-c", SLOW_IMPORT, str(home), str(place)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"copying\n"
        assert list((home / "models" / "llm").glob(".unfinished-*"))
        process.send_signal(signal.SIGKILL)
    assert not list((home / "models" / "llm").glob("[!.]*"))
    assert not (home / "models.toml").exists()
    verify(import_model(home, look_at(place), ImportRequest("llm", "tiny")))
    assert [entry.name for entry in (home / "models" / "llm").iterdir()] == ["tiny-v1"]


def test_an_alias_is_switched_whole_or_not_at_all_when_the_switching_process_is_killed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for marker in ("one", "two"):
        import_model(home, look_at(write_hf(tmp_path / "hf", marker=marker)), ImportRequest("llm", "tiny"))
    for kill_after in range(1, 5):
        with subprocess.Popen([sys.executable, "-c", SWITCHING, str(home)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(kill_after):
                process.stdout.readline()
            for _ in range(50):
                spec = load_models(home / "models.toml").get("llm", "chat")
                assert open_snapshot(home / "models", spec.path, spec.digest)
            process.send_signal(signal.SIGKILL)
        spec = load_models(home / "models.toml").get("llm", "chat")
        assert open_snapshot(home / "models", spec.path, spec.digest)


def test_a_model_larger_than_memory_is_imported_within_200_mb_and_stays_sparse(tmp_path: Path) -> None:
    size_bytes = 1024**3  # 20 GB in the benchmark
    place = tmp_path / "huge.gguf"
    place.write_bytes(gguf())
    os.truncate(place, size_bytes)
    done = subprocess.run(
        [sys.executable, "-c", SPARSE_IMPORT, str(tmp_path / "home"), str(place)], capture_output=True, text=True, timeout=100, check=True
    )
    label, peak_mb = done.stdout.split()
    copy = tmp_path / "home" / "models" / label / "huge.gguf"
    assert int(peak_mb) < 200
    assert copy.stat().st_size == size_bytes
    assert copy.stat().st_blocks * 512 < 64 * 1024**2

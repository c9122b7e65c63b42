"""The same inputs give the same bytes; nothing goes out that was not read and checked just then; what does not belong is refused by name."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from appliance.bundle.build.chunk_cache import _stat_key
from appliance.kit.errors import ApplianceError
from tests.unit.bundle.build_bed import (
    DOCS,
    IMAGES,
    ISSUED_AT,
    MODELS,
    PROJECT,
    WHEELS,
    Bed,
    Listener,
    add_model,
    commit,
    make_bed,
    make_wheel,
    read_bundle,
    use_index,
    write_lock,
    write_tree,
)


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return make_bed(tmp_path)


@pytest.fixture
def previous_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def refusal(bed: Bed, output: Path) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        bed.build(output)
    assert not output.exists()
    assert not list(output.parent.glob(f".{output.name}*"))
    return caught.value


def test_a_bundle_of_every_source_verifies_and_says_what_is_in_it(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "index"
    write_lock(bed, make_wheel(wheels, "one", "1.0"), make_wheel(wheels, "two", "2.0", "License: BSD-3-Clause\n"), make_wheel(wheels, "three", "3", ""))
    use_index(monkeypatch, wheels)
    add_model(bed)
    layout(bed.root / "images" / "web")
    bed.define(PROJECT, DOCS, WHEELS, MODELS, IMAGES)
    built = bed.build(tmp_path / "x.bundle")
    verified = bed.verified(tmp_path / "x.bundle")
    assert built.missing == 0
    assert len(verified.signers) == 2
    assert verified.manifest.sequence == ISSUED_AT
    files = read_bundle(tmp_path / "x.bundle")
    assert files["app/docs/a.md"] == b"# A\n"
    assert {"wheelhouse/one-1.0-py3-none-any.whl", "models/embed/tiny-v1/model.sig", "images/web/index.json"} <= set(files)
    release = json.loads(files["meta/release.json"])
    assert release == {"schema_version": 1, "version": "1.2.3", "python": "3.11", "entry": "appliance:main", "schema_heads": {"identity": "0007"}}
    licences = json.loads(files["meta/licences.json"])
    assert {(row["name"], row["licence"]) for row in licences["packages"] if row["component"] == "wheels"} == {
        ("one", "MIT"), ("two", "BSD-3-Clause"), ("three", "unknown"),
    }  # fmt: skip
    assert "three 3" in licences["unknown"]
    check_sboms(files)
    check_provenance(bed, tmp_path / "x.bundle", verified.manifest.digest)
    sums = (tmp_path / "appliance-install.pyz.sha256").read_text().split()
    assert sums == [sha256((tmp_path / "appliance-install.pyz").read_bytes()).hexdigest(), "appliance-install.pyz"]


def check_sboms(files: dict[str, bytes]) -> None:
    names = [name for name in files if name.endswith(".cdx.json")]
    assert len(names) == 6
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for name in names:
        assert validator.validate_str(files[name].decode()) is None, name
    whole = json.loads(files["meta/sbom.cdx.json"])
    by_purl = {entry.get("purl"): entry for entry in whole["components"]}
    wheel = by_purl["pkg:pypi/one@1.0"]
    assert wheel["hashes"] == [{"alg": "SHA-256", "content": sha256(files["wheelhouse/one-1.0-py3-none-any.whl"]).hexdigest()}]
    assert {entry["type"] for entry in whole["components"]} == {"library", "file", "machine-learning-model", "container"}


def check_provenance(bed: Bed, path: Path, digest: str) -> None:
    import tarfile

    with tarfile.open(path) as archive:
        envelope = json.load(archive.extractfile("provenance.dsse.json"))  # type: ignore[arg-type]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["subject"] == [{"name": "manifest.json", "digest": {"sha256": digest}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["definition"]["digest"]["sha256"] == sha256((bed.root / "bundles/small.toml").read_bytes()).hexdigest()
    uris = {entry["uri"] for entry in definition["resolvedDependencies"]}
    assert {"file:requirements/runtime.lock", "model:embed/tiny-v1", "image:web"} <= uris


def test_two_checkouts_in_other_places_by_other_users_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, previous_umask: None
) -> None:
    first = make_bed(tmp_path / "a")
    second = make_bed(tmp_path / "elsewhere" / "deeper", station=first.station)
    for bed in (first, second):
        add_model(bed)
        write_tree(bed.root, {"appliance/big.bin": Random(3).randbytes(5_000_000), "appliance/run.sh": "#!/bin/sh\n", "docs/ignored.pyc": "x"})
        (bed.root / "appliance/run.sh").chmod(0o755)
        bed.define(PROJECT, DOCS, MODELS)
        write_tree(bed.root, {".gitignore": "*.pyc\n"})
        commit(bed.root)
    first.build(tmp_path / "first", issued_at=None, jobs=1)
    os.umask(0o077)
    monkeypatch.setenv("TZ", "Asia/Kamchatka")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    for path in second.root.rglob("*"):
        if ".git" not in path.parts:
            os.utime(path, (1, 1))
            path.chmod(path.stat().st_mode & ~0o077)
    second.build(tmp_path / "second", issued_at=None, jobs=3)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert first.verified(tmp_path / "first").manifest.sequence == ISSUED_AT
    assert not first.listener.warned
    modes = {file.path: file.mode for file in first.verified(tmp_path / "first").manifest.files}
    assert modes["app/appliance/run.sh"] == "0755"
    assert modes["app/docs/a.md"] == "0644"
    assert "app/docs/ignored.pyc" not in modes


def test_what_is_not_committed_is_named_and_dates_the_bundle(bed: Bed, tmp_path: Path) -> None:
    bed.define(PROJECT, DOCS)
    commit(bed.root)
    (bed.root / "docs" / "a.md").write_text("# B\n")
    write_tree(bed.root, {"outside.txt": "no part of the bundle"})
    os.utime(bed.root / "docs" / "a.md", (ISSUED_AT + 500, ISSUED_AT + 500))
    built = bed.build(tmp_path / "x", issued_at=None)
    assert built.manifest.sequence == ISSUED_AT + 500
    assert "docs/a.md" in bed.listener.warned[0]
    assert "outside.txt" not in "".join(bed.listener.warned)


def test_a_file_that_the_cache_knows_wrongly_is_read_again(bed: Bed, tmp_path: Path) -> None:
    """The stat of a file says nothing about its bytes: a bit may have flipped under it."""
    big = bed.root / "docs" / "big.bin"
    write_tree(bed.root, {"docs/big.bin": Random(1).randbytes(3_000_000)})
    bed.define(DOCS)
    bed.build(tmp_path / "before")
    big.write_bytes(Random(2).randbytes(3_000_000))
    with sqlite3.connect(bed.cache / "chunks.sqlite") as database:
        database.execute("UPDATE files SET stat = ? WHERE path = ?", (_stat_key(big), os.fsencode(big).hex()))
    database.close()
    bed.build(tmp_path / "after")
    assert read_bundle(tmp_path / "after")["app/docs/big.bin"] == big.read_bytes()
    bed.verified(tmp_path / "after")
    assert any("big.bin has changed" in warning for warning in bed.listener.warned)


def test_the_second_place_of_a_blob_is_checked_too(bed: Bed, tmp_path: Path) -> None:
    write_tree(bed.root, {"docs/one.bin": b"same content", "docs/two.bin": b"same content"})
    bed.define(DOCS)
    bed.build(tmp_path / "before")
    two = bed.root / "docs" / "two.bin"
    two.write_bytes(b"SAME CONTENT")
    with sqlite3.connect(bed.cache / "chunks.sqlite") as database:
        database.execute("UPDATE files SET stat = ? WHERE path = ?", (_stat_key(two), os.fsencode(two).hex()))
    database.close()
    bed.build(tmp_path / "after")
    assert read_bundle(tmp_path / "after")["app/docs/two.bin"] == b"SAME CONTENT"


def test_fewer_signatures_than_the_threshold_are_told(bed: Bed, tmp_path: Path) -> None:
    bed.define(DOCS)
    next(path for path in (bed.station.folder / "keys").glob("*.pem") if ".pub." not in path.name).unlink()
    assert bed.build(tmp_path / "x").missing == 1


def test_a_wheel_that_the_lock_does_not_name_is_not_taken(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "index"
    write_lock(bed, make_wheel(wheels, "one", "1.0"))
    make_wheel(wheels, "one", "1.0", "License: changed on the mirror\n")
    use_index(monkeypatch, wheels)
    bed.define(WHEELS)
    error = refusal(bed, tmp_path / "x")
    assert error.code == "unavailable"
    assert "runtime.lock" in error.message


def test_a_denied_licence_stops_the_build_and_an_accepted_one_is_reported(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = tmp_path / "index"
    write_lock(bed, make_wheel(wheels, "spy", "1.0", "License-Expression: AGPL-3.0-only\n"))
    use_index(monkeypatch, wheels)
    bed.define(WHEELS)
    assert "spy 1.0 (AGPL-3.0-only)" in refusal(bed, tmp_path / "x").message
    bed.define('[licences.accept]\nspy = "never linked"\n', WHEELS)
    bed.build(tmp_path / "x")
    assert "AGPL-3.0-only (accepted: never linked)" in read_bundle(tmp_path / "x")["meta/licences.md"].decode()


def test_offline_nothing_is_fetched(bed: Bed, tmp_path: Path) -> None:
    write_lock(bed, make_wheel(tmp_path / "index", "one", "1.0"))
    bed.define(WHEELS)
    with pytest.raises(ApplianceError, match=r"no wheel for one 1\.0"):
        bed.build(tmp_path / "x", offline=True)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("model.onnx", b"WEIGHTS " * 1000, "snapshot_altered"), ("surprise.bin", b"", "snapshot_altered"), ("model.sig", b"{}", "snapshot_altered")],
)
def test_an_altered_model_does_not_go_in(bed: Bed, tmp_path: Path, name: str, content: bytes, code: str) -> None:
    folder = add_model(bed)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    bed.define(MODELS)
    error = refusal(bed, tmp_path / "x")
    assert error.code == code
    assert name in error.message


def test_a_model_that_sites_would_refuse_does_not_go_in(bed: Bed, tmp_path: Path) -> None:
    (add_model(bed) / "model.sig").unlink()
    bed.define(MODELS)
    error = refusal(bed, tmp_path / "x")
    assert error.code == "snapshot_unsigned"
    assert "trust rotate" in error.hint


def test_a_missing_model_says_how_to_get_it(bed: Bed, tmp_path: Path) -> None:
    shutil.rmtree(add_model(bed))
    bed.define(MODELS)
    error = refusal(bed, tmp_path / "x")
    assert error.code == "snapshot_missing"
    assert "make setup" in error.hint


def layout(folder: Path) -> Path:
    """A tiny OCI layout; returns its layer blob."""
    layer, config = b"layer", b"{}"

    def descriptor(data: bytes, kind: str) -> dict[str, object]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{sha256(data).hexdigest()}", "size": len(data)}

    manifest = json.dumps({"config": descriptor(config, "config.v1+json"), "layers": [descriptor(layer, "layer.v1.tar")]}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(manifest, "manifest.v1+json")]})
    blobs = {f"blobs/sha256/{sha256(data).hexdigest()}": data for data in (layer, config, manifest)}
    write_tree(folder, {"oci-layout": '{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs})
    return folder / "blobs" / "sha256" / sha256(layer).hexdigest()


def test_an_image_with_a_flipped_byte_a_missing_blob_or_a_stranger_does_not_go_in(bed: Bed, tmp_path: Path) -> None:
    bed.define(IMAGES)
    blob = layout(bed.root / "images" / "web")
    blob.write_bytes(b"LAYER")
    assert blob.name in refusal(bed, tmp_path / "x").message
    blob.unlink()
    assert f"{blob.name} is missing" in refusal(bed, tmp_path / "x").message
    layout(bed.root / "images" / "web")
    write_tree(bed.root, {"images/web/extra": "x"})
    assert "extra does not belong" in refusal(bed, tmp_path / "x").message


def test_an_empty_component_stops_the_build_unless_it_is_optional(bed: Bed, tmp_path: Path) -> None:
    bed.define(DOCS, IMAGES)
    assert "component images is empty" in refusal(bed, tmp_path / "x").message
    bed.define(DOCS, IMAGES + "optional = true\n")
    bed.build(tmp_path / "x")
    assert any("images" in warning for warning in bed.listener.warned)


@pytest.mark.parametrize("name", ["docs/с кириллицей.md", "docs/two words.md"])
def test_a_name_that_a_bundle_cannot_hold_is_refused(bed: Bed, tmp_path: Path, name: str) -> None:
    write_tree(bed.root, {name: "x"})
    bed.define(DOCS)
    assert name in refusal(bed, tmp_path / "x").message


def test_a_link_in_the_tree_is_refused(bed: Bed, tmp_path: Path) -> None:
    (bed.root / "docs" / "passwords").symlink_to("/etc/shadow")
    bed.define(DOCS)
    assert "docs/passwords" in refusal(bed, tmp_path / "x").message


def test_two_files_that_differ_in_case_only_are_refused(bed: Bed, tmp_path: Path) -> None:
    write_tree(bed.root, {"docs/A.md": "x"})
    bed.define(DOCS)
    assert refusal(bed, tmp_path / "x").code == "bundle_invalid"


def test_without_leaves_a_kind_out_and_says_so(bed: Bed, tmp_path: Path) -> None:
    bed.define(DOCS, PROJECT)
    built = bed.build(tmp_path / "x", without=("docs",))
    assert {part.kind for part in built.manifest.components} == {"project", "metadata"}
    assert any("left out: docs" in warning for warning in bed.listener.warned)


def test_the_sequence_and_the_time_of_issue_can_be_given(bed: Bed, tmp_path: Path) -> None:
    bed.define(DOCS)
    built = bed.build(tmp_path / "x", sequence=42)
    assert built.manifest.sequence == 42
    assert int(built.manifest.issued_at.timestamp()) == ISSUED_AT
    listener = Listener()
    assert replace(bed, listener=listener).build(tmp_path / "y", sequence=42).manifest.digest == built.manifest.digest

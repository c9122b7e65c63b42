"""models.toml: what it says, what it refuses, how a site overlays it."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.hub.models_toml import load_home_models, load_models, shipped_models_file
from appliance.kit.errors import ApplianceError
from tests.unit.model_samples import EMBED, write_models

ENDPOINT = '[llm.fake]\nendpoint = "http://127.0.0.1:9/v1/"\n'


def refusal(folder: Path, text: str, **extra: str) -> ApplianceError:
    with pytest.raises(ApplianceError) as caught:
        load_models(write_models(folder, text, **extra))
    assert caught.value.code == "models_file_invalid"
    assert "models.toml" in caught.value.message
    assert caught.value.hint
    return caught.value


def test_the_shipped_file_pins_an_english_embedding_and_a_default_of_each_kind() -> None:
    catalog = load_models(shipped_models_file())
    minilm = catalog.get("embed", "minilm")
    assert (minilm.languages, minilm.max_context, minilm.dimensions, minilm.format) == (("en",), 256, 384, "onnx")
    assert minilm.source_sha256.startswith("53aa5117")
    assert minilm.source_sha256.endswith("d9db")
    assert catalog.get("llm", "default").engine == "reader"
    assert catalog.get("rerank", "default").engine == "lexical"


def test_the_commented_examples_are_valid_when_they_are_uncommented(tmp_path: Path) -> None:
    blocks, inside = [], False
    for line in shipped_models_file().read_text(encoding="utf-8").splitlines():
        inside = line.startswith("# [") or (inside and line.startswith("# "))
        if inside:
            blocks.append(line[2:])
    catalog = load_models(write_models(tmp_path, "\n".join(blocks)))
    assert catalog.get("embed", "minilm-int8").precision == "int8"
    assert catalog.get("llm", "default").endpoint == "http://127.0.0.1:8000/v1"


def test_an_endpoint_makes_a_chat_model_whose_name_is_its_alias(tmp_path: Path) -> None:
    spec = load_models(write_models(tmp_path, ENDPOINT)).get("llm", "fake")
    assert (spec.engine, spec.endpoint, spec.model) == ("openai", "http://127.0.0.1:9/v1", "fake")


def test_prices_context_and_key_file_are_read(tmp_path: Path) -> None:
    text = (
        ENDPOINT
        + 'model = "m"\napi_key_file = "llm.key"\nmax_context = 8192\nlanguages = ["ru"]\nprice_per_million_input = 2\nprice_per_million_output = 6.5\n'
    )
    spec = load_models(write_models(tmp_path, text)).get("llm", "fake")
    assert (spec.model, spec.max_context, spec.languages) == ("m", 8192, ("ru",))
    assert (spec.price_per_million_input, spec.price_per_million_output) == (2.0, 6.5)
    assert spec.api_key_file == tmp_path / "llm.key"


def test_a_site_replaces_whole_entries_and_adds_its_own(tmp_path: Path) -> None:
    root = write_models(tmp_path / "root", EMBED + '[llm.default]\nengine = "reader"\nlanguages = ["en"]\n')
    write_models(tmp_path / "home", '[llm.default]\nendpoint = "https://gpu1/v1"\n[llm.other]\nengine = "reader"\n')
    catalog = load_home_models(tmp_path / "home", root)
    assert catalog.get("llm", "default").endpoint == "https://gpu1/v1"
    assert catalog.get("llm", "default").languages == ()
    assert [spec.alias for spec in catalog.of_kind("llm")] == ["default", "other"]
    assert catalog.get("embed", "minilm").dimensions == 384


def test_a_home_without_a_file_leaves_the_root_as_it_is(tmp_path: Path) -> None:
    root = write_models(tmp_path, EMBED)
    assert load_models(root, tmp_path / "absent.toml") == load_models(root)


def test_an_unknown_alias_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError) as caught:
        load_models(write_models(tmp_path, ENDPOINT)).get("llm", "gpt-4")
    assert caught.value.code == "model_not_found"
    assert "fake" in caught.value.hint


def test_an_overlay_without_a_schema_version_is_told_which_line_to_add(tmp_path: Path) -> None:
    root = write_models(tmp_path / "root", EMBED)
    overlay = write_models(tmp_path / "home", ENDPOINT, version="")
    with pytest.raises(ApplianceError, match="schema_version: missing") as caught:
        load_home_models(tmp_path / "home", root)
    assert str(overlay) in caught.value.hint
    assert "schema_version = 1" in caught.value.hint


@pytest.mark.parametrize("version", ["", "schema_version = 2\n", 'schema_version = "1"\n', "schema_version = true\n"])
def test_another_schema_version_is_refused(tmp_path: Path, version: str) -> None:
    assert "schema_version" in refusal(tmp_path, EMBED, version=version).message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("surprise = 1\n", "surprise"),
        ("[vision.default]\nengine = 'x'\n", "vision"),
        ("[llm]\ndefault = 3\n", "llm.default"),
        (EMBED + "colour = 'red'\n", "embed.minilm.colour"),
        (EMBED.replace("digest =", "# digest ="), "embed.minilm.digest"),
        (EMBED.replace('digest = "sha256:0', 'digest = "sha256:g'), "embed.minilm.digest"),
        (EMBED.replace('"onnx"\nsource ', '"torch"\nsource '), "embed.minilm.engine"),
        (EMBED.replace('format = "onnx"', 'format = "pickle"'), "embed.minilm.format"),
        (EMBED.replace("384", "-1"), "embed.minilm.dimensions"),
        (EMBED.replace("256\n", "true\n"), "embed.minilm.max_context"),
        (EMBED.replace('["en"]', '"en"'), "embed.minilm.languages"),
        (EMBED.replace('["en"]', '["english"]'), "embed.minilm.languages"),
        (EMBED.replace("some-package==1.0", "https://example.org/x.whl"), "embed.minilm.source"),
        (EMBED.replace("source_sha256", "# source_sha256"), "embed.minilm.source"),
        (EMBED.replace("embed/tiny-v1", "llm/tiny-v1"), "embed.minilm.path"),
        (ENDPOINT + "engine = 'reader'\n", "llm.fake.endpoint"),
        (ENDPOINT + "price_per_million_input = -1\n", "llm.fake.price_per_million_input"),
        (ENDPOINT + "price_per_million_input = inf\n", "llm.fake.price_per_million_input"),
        (ENDPOINT + "api_key_file = '../../etc/shadow'\n", "llm.fake.api_key_file"),
        ("[llm.'two words']\nengine = 'reader'\n", "llm.two words"),
        ("[llm.x]\n", "llm.x.engine"),
        ("[[llm.x]]\nengine = 'reader'\n", "llm.x"),
        ("not toml", "models.toml"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    assert named in refusal(tmp_path, text).message


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/v1",
        "127.0.0.1:8000/v1",
        "http://",
        "http://user:secret@host/v1",
        "http://host/v1?key=secret",
        "http://host:99999/v1",
        "http://host:0/v1",
        "file:///etc/passwd",
        "http://ho st/v1",
        "http://[::1/v1",
    ],
)
def test_a_bad_address_is_refused(tmp_path: Path, address: str) -> None:
    assert "llm.fake.endpoint" in refusal(tmp_path, f'[llm.fake]\nendpoint = "{address}"\n').message


def test_a_missing_root_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError, match=r"absent\.toml"):
        load_models(tmp_path / "absent.toml")

"""``appliance models serve`` as an operator types it, on a snapshot of the hub."""

from __future__ import annotations

import json

import pytest

from appliance.testing.tiny_hf import write_tiny_hf
from tests.integration.test_models_cli import Site, site

__all__ = ["site"]


@pytest.fixture
def station(site: Site) -> Site:  # noqa: F811 - the fixture of the other module
    site.run("import", str(write_tiny_hf(site.folder / "tiny")), "--kind", "llm", "--name", "tiny", "--license", "MIT")
    return site


def test_the_profile_names_the_folder_of_the_hub_and_the_parser_of_its_template(station: Site) -> None:
    made = json.loads(station.run("serve", "llm.tiny", "--print", "json"))
    folder = station.home / "models/llm/tiny-v1"
    assert made["snapshot"] == str(folder)
    assert made["argv"][made["argv"].index("--model") + 1] == str(folder)
    assert made["argv"][made["argv"].index("--tool-call-parser") + 1] == "hermes"
    words = station.run("serve", "tiny", "--print", "argv", "--python", "/opt/p").split("\0")
    assert {"HF_HUB_OFFLINE=1", "/opt/p", str(folder)} <= set(words)
    assert "ExecStart=/opt/vllm/bin/python -m vllm" in station.run("serve", "tiny")
    assert json.loads(station.run("serve", "tiny", "--print", "compose"))["services"]["vllm-tiny"]["pull_policy"] == "never"


def test_altered_weights_and_other_engines_are_refused(station: Site) -> None:
    weights = station.home / "models/llm/tiny-v1/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(data)
    station.run("serve", "tiny", code="snapshot_altered")
    station.run("serve", "default", code="invalid_request")
    station.run("serve", "nobody", code="model_not_found")

"""sentence-transformers behind the ports: without torch it says so; with it (marker ``parity``) it keeps the contracts and agrees with ONNX."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from appliance.hub.model_trust import ModelSigner, ModelTrust
from appliance.kit.errors import ApplianceError
from appliance.testing.check_encoder import check_encoder
from appliance.testing.check_reranker import check_reranker
from services.embed.bootstrap import load_encoder
from services.embed.held_encoder import HeldEncoder
from services.embed.settings import EmbedSettings
from services.rerank.bootstrap import EndingReranker, load_reranker
from services.rerank.settings import RerankSettings
from tests.unit.tiny_encoders import hf_snapshot, make_hub

HAVE_TORCH = bool(find_spec("torch") and find_spec("sentence_transformers"))
TEXTS = ["pump", "a contract ends in may", "music " * 40, "ё", "", "😀", *(f"{'pump ' * (n % 9)}{n}" for n in range(60))]


@pytest.mark.skipif(HAVE_TORCH, reason="torch is installed here")
def test_without_torch_the_models_are_unavailable_and_hold_no_lease(tmp_path: Path) -> None:
    signer = ModelSigner.generate()
    trust = ModelTrust.of(signer.public_key)
    for load in (
        lambda: load_encoder(hf_snapshot(tmp_path, "embed", signer), tmp_path / "models", EmbedSettings(), trust),
        lambda: load_reranker(hf_snapshot(tmp_path, "rerank", signer), tmp_path / "models", trust, RerankSettings()),
    ):
        with pytest.raises(ApplianceError, match="not installed on this node") as caught:
            load()
        assert (caught.value.code, "gpu" in caught.value.hint) == ("unavailable", True)


def _parity() -> None:
    if os.environ.get("APPLIANCE_SKIP_PARITY") or not HAVE_TORCH:
        pytest.skip("parity: torch and sentence-transformers are not installed")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
async def test_the_encoder_on_torch_keeps_the_contract_and_agrees_with_onnx(tmp_path: Path) -> None:
    _parity()
    signer = ModelSigner.generate()
    hub = make_hub(tmp_path / "onnx")
    ours = load_encoder(hub.specs["tiny"], hub.hub, EmbedSettings(), hub.trust)
    torch = load_encoder(hf_snapshot(tmp_path, "embed", signer), tmp_path / "models", EmbedSettings(device="cpu"), ModelTrust.of(signer.public_key))

    async def make() -> HeldEncoder:
        return torch

    await check_encoder(make)
    cosines = (await ours.embed(TEXTS) * await torch.embed(TEXTS)).sum(axis=1)
    print(f"lowest cosine {cosines.min():.7f}")
    assert cosines.min() >= 0.9999
    assert [torch.count_tokens(text) for text in TEXTS] == [ours.count_tokens(text) for text in TEXTS]
    await torch.end()
    await ours.end()


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
async def test_the_cross_encoder_on_torch_keeps_the_contract_and_agrees_with_onnx(tmp_path: Path) -> None:
    _parity()
    signer = ModelSigner.generate()
    hub = make_hub(tmp_path / "onnx")
    ours = load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings())
    torch = load_reranker(
        hf_snapshot(tmp_path, "rerank", signer), tmp_path / "models", ModelTrust.of(signer.public_key), RerankSettings(device="cpu")
    )

    async def make() -> EndingReranker:
        return torch

    await check_reranker(make)
    for query in ("when does it end", "music " * 30):
        expected, found = np.array(await ours.rerank(query, TEXTS)), np.array(await torch.rerank(query, TEXTS))
        print(f"largest difference {np.abs(expected - found).max():.7f}")
        assert np.abs(expected - found).max() < 1e-4
    await torch.end()
    await ours.end()

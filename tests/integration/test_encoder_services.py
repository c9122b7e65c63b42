"""Embedding and reranking as services over gRPC: the clients keep the contracts of what runs in process; keys, certificates, errors, one real process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.contracts.embed.v1.api import Embedder, Encoder, PackedVectors
from appliance.contracts.embed.v1.client import embedder_handler
from appliance.contracts.rerank.v1.api import Rerankers, TextReranker
from appliance.contracts.rerank.v1.client import rerankers_handler
from appliance.hub.model_trust import ModelTrust
from appliance.inference.model_directory import ModelDirectory
from appliance.kit.errors import ApplianceError
from appliance.kit.grpc import deadline, open_channel
from appliance.kit.rpc_service import key_check, serving_rpc
from appliance.testing.check_encoder import check_encoder
from appliance.testing.check_reranker import check_reranker
from services.embed.address import EmbedderAddress
from services.embed.bootstrap import load_encoder, open_embedder, open_encoders, remote_encoder, served_specs, vector_identity
from services.embed.grpc_encoder import MOST_BYTES, GrpcEncoder
from services.embed.settings import EmbedSettings
from services.rerank.address import RerankerAddress
from services.rerank.bootstrap import load_reranker, open_reranker_service, remote_reranker
from services.rerank.reranker_service import RerankerService
from services.rerank.settings import RerankSettings
from tests.integration.test_grpc import Authority
from tests.unit.tiny_encoders import TinyHub, altered, make_hub

KEY = "0123456789abcdef-a-long-enough-key"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> TinyHub:
    return make_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    (tmp_path / "service.key").write_text(KEY + "\n")
    return tmp_path / "service.key"


def loader(hub: TinyHub, settings: EmbedSettings | None = None):
    return lambda spec: load_encoder(spec, hub.hub, settings or EmbedSettings(), hub.trust)


@asynccontextmanager
async def embedding(hub: TinyHub, address: EmbedderAddress, settings: EmbedSettings | None = None) -> AsyncIterator[tuple[Embedder, int]]:
    encoders, service = open_encoders([hub.specs["tiny"], hub.specs["other"]], loader(hub, settings))
    async with serving_rpc([embedder_handler(service, key_check(address))], address, lambda: True) as port:
        async with open_embedder(address.model_copy(update={"port": port})) as embedder:
            yield embedder, port
    await encoders.end()


@asynccontextmanager
async def reranking(hub: TinyHub, address: RerankerAddress) -> AsyncIterator[Rerankers]:
    directory = ModelDirectory(
        [hub.specs["cross"], hub.specs["encoder"]], lambda spec: load_reranker(spec, hub.hub, hub.trust, RerankSettings()), "reranking model"
    )
    async with serving_rpc([rerankers_handler(RerankerService(directory), key_check(address))], address, lambda: True) as port:
        async with open_reranker_service(address.model_copy(update={"port": port})) as service:
            yield service
    await directory.end()


async def test_the_encoder_keeps_the_contract_in_process_and_over_grpc(hub: TinyHub, key_file: Path) -> None:
    local = load_encoder(hub.specs["tiny"], hub.hub, EmbedSettings(query_cache_entries=0), hub.trust)

    async def in_process() -> Encoder:
        return local

    await check_encoder(in_process)
    async with embedding(hub, EmbedderAddress(key_file=key_file)) as (embedder, _):
        remote = remote_encoder(hub.specs["tiny"], embedder)

        async def over_grpc() -> Encoder:
            return remote

        await check_encoder(over_grpc)
        texts = ["pump", "a contract ends", "", "ё"]
        assert np.allclose(await remote.embed(texts), await local.embed(texts), atol=1e-6)
        assert [remote.count_tokens(text) for text in texts] == [local.count_tokens(text) for text in texts]
    await local.end()


async def test_the_cross_encoder_keeps_the_contract_over_grpc(hub: TinyHub, key_file: Path) -> None:
    async with reranking(hub, RerankerAddress(key_file=key_file)) as service:
        remote = remote_reranker(hub.specs["cross"], service)

        async def make() -> TextReranker:
            return remote

        await check_reranker(make)
        local = load_reranker(hub.specs["cross"], hub.hub, hub.trust, RerankSettings())
        many = [f"pump {'x' * (number % 7)}" for number in range(150)]
        assert await remote.rerank("pump", many) == pytest.approx(await local.rerank("pump", many), abs=1e-6), "parts of a long list fit together"
        await local.end()


async def test_several_models_are_served_side_by_side_and_listed(hub: TinyHub, key_file: Path) -> None:
    async with embedding(hub, EmbedderAddress(key_file=key_file)) as (embedder, _):
        cards = await embedder.models("test")
        assert [(card.alias, card.dimensions, card.identity) for card in cards] == [
            (alias, 24, vector_identity(hub.specs[alias])) for alias in ("tiny", "other")
        ]
        tiny, other = [await remote_encoder(hub.specs[alias], embedder).embed(["pump"]) for alias in ("tiny", "other")]
        assert abs(float(tiny[0] @ other[0])) < 0.99
        with pytest.raises(ApplianceError) as absent:
            await embedder.embed("test", "third", ["x"])
        assert absent.value.code == "model_not_found"
    async with reranking(hub, RerankerAddress(key_file=key_file)) as service:
        assert [(card.alias, card.engine, card.problem) for card in await service.models("test")] == [("cross", "onnx", ""), ("encoder", "onnx", "")]
        with pytest.raises(ApplianceError) as wrong:
            await service.rerank("test", "encoder", "x", ["y"])
        assert (wrong.value.code, bool(wrong.value.hint)) == ("snapshot_altered", True)
        assert "logit" in (await service.models("test"))[1].problem


async def test_other_weights_than_those_of_this_side_are_refused(hub: TinyHub, key_file: Path) -> None:
    async with embedding(hub, EmbedderAddress(key_file=key_file)) as (embedder, _):
        other = remote_encoder(replace(hub.specs["tiny"], digest="f" * 64), embedder)
        with pytest.raises(ApplianceError, match="other weights") as caught:
            await other.embed(["pump"])
        assert caught.value.code == "unavailable"


async def test_a_call_that_would_not_fit_a_message_is_cut_or_refused(hub: TinyHub, key_file: Path) -> None:
    sizes: list[int] = []

    class Watching:
        def __init__(self, inner: Embedder) -> None:
            self._inner = inner
            self.tokenizer = inner.tokenizer

        async def embed(self, caller: str, model: str, texts: Sequence[str], background: bool = False) -> PackedVectors:
            sizes.append(sum(len(text.encode()) for text in texts))
            return await self._inner.embed(caller, model, texts, background)

    async with embedding(hub, EmbedderAddress(key_file=key_file)) as (embedder, _):
        spec = hub.specs["tiny"]
        long = GrpcEncoder(Watching(embedder), spec, vector_identity(spec))  # type: ignore[arg-type]
        assert (await long.embed(["слово " * 100_000] * 600, background=True)).shape == (600, 24)
        assert len(sizes) >= 3
        assert max(sizes) <= MOST_BYTES
        with pytest.raises(ApplianceError) as many:
            await embedder.embed("test", "tiny", ["x"] * 2049)
        assert many.value.code == "too_large"


async def test_who_has_not_the_key_is_turned_away_and_a_service_without_key_and_tls_does_not_start(
    hub: TinyHub, key_file: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.write_text("another-key-that-is-long-enough\n")
    async with embedding(hub, EmbedderAddress(key_file=key_file)) as (_, port):
        async with open_embedder(EmbedderAddress(key_file=wrong, port=port)) as stranger:
            with pytest.raises(ApplianceError) as caught:
                await stranger.models("test")
            assert caught.value.code == "unauthenticated"
        channel = open_channel("127.0.0.1", port, None)
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01", "the health check takes no key"
        await channel.close()
    short = tmp_path / "short.key"
    short.write_text("abc\n")
    for address in (EmbedderAddress(), EmbedderAddress(key_file=short), EmbedderAddress(key_file=tmp_path / "absent")):
        with pytest.raises(ApplianceError) as refused:
            key_check(address)
        assert refused.value.code == "settings_invalid"
        assert "APPLIANCE_EMBEDDER_KEY_FILE" in refused.value.message + refused.value.hint


async def test_with_mutual_tls_a_certificate_of_the_authority_is_enough(hub: TinyHub, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    server, friend, foe = authority.issue("embed"), authority.issue("gateway"), stranger.issue("gateway")
    async with embedding(hub, EmbedderAddress(certificate=server.certificate, key=server.key, authority=server.authority)) as (_, port):
        async with open_embedder(EmbedderAddress(port=port, certificate=friend.certificate, key=friend.key, authority=friend.authority)) as ours:
            assert (await remote_encoder(hub.specs["tiny"], ours).embed(["pump"])).shape == (1, 24)
        async with open_embedder(EmbedderAddress(port=port, certificate=foe.certificate, key=foe.key, authority=friend.authority)) as theirs:
            with pytest.raises(ApplianceError) as caught:
                await theirs.models("test")
            assert caught.value.code == "unavailable"


async def test_overload_and_a_passed_deadline_arrive_as_what_they_are(hub: TinyHub, key_file: Path) -> None:
    settings = EmbedSettings(query_threads=1, max_waiting_queries=1, query_cache_entries=0)
    async with embedding(hub, EmbedderAddress(key_file=key_file), settings) as (embedder, _):
        await embedder.embed("test", "tiny", ["warm"])
        answers = await asyncio.gather(*(embedder.embed("test", "tiny", [f"{number} pump"]) for number in range(40)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert {error.code for error in refused if isinstance(error, ApplianceError)} <= {"overloaded"}
        assert len(refused) < 40, "it goes on for the others"
        token = deadline.set(asyncio.get_running_loop().time() - 1e9)
        try:
            with pytest.raises(ApplianceError) as late:
                await embedder.embed("test", "tiny", ["x"])
        finally:
            deadline.reset(token)
        assert late.value.code == "upstream_timeout"


async def test_a_service_that_is_not_there_is_unavailable(hub: TinyHub, key_file: Path) -> None:
    async with open_embedder(EmbedderAddress(key_file=key_file, port=1, call_seconds=5)) as embedder:
        encoder = remote_encoder(hub.specs["tiny"], embedder)
        with pytest.raises(ApplianceError) as caught:
            await encoder.embed(["x"])
        assert caught.value.code in {"unavailable", "upstream_timeout"}
        assert encoder.count_tokens("two words") == 2


async def test_an_altered_model_is_told_to_who_asks_for_it_and_the_others_serve(tmp_path: Path, key_file: Path) -> None:
    hub = make_hub(tmp_path / "own")
    altered(hub, "tiny")
    async with embedding(hub, EmbedderAddress(key_file=key_file)) as (embedder, _):
        with pytest.raises(ApplianceError) as caught:
            await embedder.embed("test", "tiny", ["x"])
        assert caught.value.code == "snapshot_altered"
        assert (await embedder.embed("test", "other", ["x"])).rows == 1


async def test_the_service_runs_as_a_process_of_its_own(tmp_path: Path, key_file: Path) -> None:
    home = tmp_path / "home"
    hub = make_hub(home)
    (home / "keys").mkdir()
    trusted = home / "keys" / "models.pub.pem"
    trusted.write_bytes(_pem(hub.trust))
    entry = 'engine = "onnx"\nformat = "onnx"\nlanguages = ["en"]\nmax_context = 32\n'
    tables = [
        f'[embed.{alias}]\n{entry}dimensions = 24\npath = "embed/{alias}-v1"\ndigest = "sha256:{hub.specs[alias].digest}"\n'
        for alias in ("tiny", "other")
    ]
    (home / "models.toml").write_text("schema_version = 1\n" + "".join(tables))
    environment = {
        **os.environ,
        "APPLIANCE_HOME": str(home),
        "APPLIANCE_EMBED_MODEL": "tiny",
        "APPLIANCE_EMBED_SERVE": '["other"]',
        "APPLIANCE_EMBEDDER_KEY_FILE": str(key_file),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.embed", env=environment, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        found = re.search(r":(\d+): tiny, other$", line.strip())
        assert found, line
        async with open_embedder(EmbedderAddress(key_file=key_file, port=int(found.group(1)))) as embedder:
            for alias in ("tiny", "other"):
                assert (await remote_encoder(hub.specs[alias], embedder).embed(["pump"])).shape == (1, 24)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_the_served_models_are_the_one_of_the_box_and_those_named_beside_it(hub: TinyHub) -> None:
    from appliance.hub.model_spec import ModelCatalog

    catalog = ModelCatalog(tuple(hub.specs.values()))
    assert [spec.alias for spec in served_specs(catalog, EmbedSettings(model="other", serve=("tiny", "other")))] == ["other", "tiny"]
    with pytest.raises(ApplianceError, match="absent"):
        served_specs(catalog, EmbedSettings(model="tiny", serve=("absent",)))


def _pem(trust: ModelTrust) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    (key,) = trust.keys.values()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

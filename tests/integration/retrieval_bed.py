"""A real retrieval service (SQLite, tantivy, qdrant-edge) in a temporary folder, with a small deterministic encoder."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from appliance.contracts.retrieval.v1.documents import Document, Submitted, Upload
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.sql import open_database
from services.rerank.lexical_reranker import LexicalReranker
from services.retrieval.bootstrap import Record, RetrievalService, SpaceExists, open_retrieval
from services.retrieval.parsing.document import ParsedDocument, ParsedPage
from services.retrieval.prepare import prepare
from services.retrieval.settings import RetrievalSettings
from services.retrieval.tables import SCHEMA


class TextPreparer:
    """Reads UTF-8 files in this process: the sandbox has tests of its own."""

    async def prepare(self, path, name, on_progress):
        on_progress(0, 1)
        return prepare(ParsedDocument((ParsedPage(None, path.read_text()),), (), "", "text/plain", None))


class WordEncoder:
    """Bag of hashed words, unit length: equal texts are equal, unlike texts are far apart."""

    dimensions = 32
    languages = frozenset({"en"})

    async def embed(self, texts: Sequence[str], *, background: bool = False):
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[int.from_bytes(hashlib.blake2b(word.encode(), digest_size=2).digest()) % self.dimensions] += 1
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return rows

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def principal(spaces: Mapping[str, SpaceRole], name: str = "anna", *, admin: bool = False) -> Principal:
    return Principal(f"user:{name}", "user", frozenset({"admin"} if admin else {"member"}), spaces=dict(spaces))


@asynccontextmanager
async def retrieval_in(
    folder: Path, *, encoder: object | None = None, preparer: object | None = None, record: Record | None = None,
    space_exists: SpaceExists | None = None, settings: RetrievalSettings | None = None,
) -> AsyncIterator[RetrievalService]:  # fmt: skip
    async def no_record(*_: object) -> None: ...

    async def every_space(_: str) -> bool:
        return True

    engine = await open_database(folder / "box.db", SCHEMA)
    try:
        async with open_retrieval(
            blobs=folder / "blobs", indexes=folder / "indexes", engine=engine, encoder=encoder or WordEncoder(),
            reranker=LexicalReranker(), preparer=preparer or TextPreparer(), settings=settings or RetrievalSettings(), record=record or no_record,
            space_exists=space_exists or every_space,
        ) as service:
            yield service
    finally:
        await engine.dispose()


async def submit(service: RetrievalService, folder: Path, name: str, text: str | bytes, space: str, who: Principal) -> Submitted:
    data = text.encode() if isinstance(text, str) else text
    path = folder / f"upload-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return await service.documents.submit(Upload(name, path, len(data), hashlib.sha256(data).hexdigest()), space, who)


async def settled(service: RetrievalService, document_id: str, who: Principal) -> Document:
    """Wait (level-triggered) until the document is ready with vectors, or failed."""
    async for progress in service.documents.progress(document_id, who):
        if progress.status == "failed" or (progress.status == "ready" and progress.embedded_chunks == progress.chunks):
            break
    return await service.documents.get(document_id, who)

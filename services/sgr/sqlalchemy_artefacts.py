"""Implements ``ArtefactStore``: rows in a relational database, bytes in a folder by digest, ``ab/abcdef…``.

Invariants:

- A blob is whole or absent, and durable before a row names it (temporary name, fsync, rename, fsync of the folders).
- A blob that no row names is waste: removed with its last row, and by :meth:`collect` at start for what a killed process left.
- Adding and removing blobs take turns, so none is removed between a row's check and its insertion. One process owns the folder (the home's lock).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from appliance.contracts.router.v1.api import CitationEvent
from appliance.contracts.sgr.v1.api import Artefact
from appliance.kit.errors import ApplianceError, not_found
from appliance.kit.sql import reading, writing
from services.sgr.ports import Rendered
from services.sgr.tables import artefacts

QUOTA_BYTES: Final = 256 * 1024 * 1024
MOST_OF_ONE_OWNER: Final = 10_000
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME_CHARACTERS: Final = 200


class SqlAlchemyArtefacts:
    """The engine belongs to the caller.

    Args:
        engine: a database with the tables of ``services.sgr.tables``.
        folder: ``$APPLIANCE_HOME/artefacts``; made when absent.
        quota_bytes: of one owner.
    """

    def __init__(self, engine: AsyncEngine, folder: Path, *, quota_bytes: int = QUOTA_BYTES) -> None:
        self._engine = engine
        self._folder = folder
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._quota_bytes = quota_bytes
        self._turn = asyncio.Lock()

    async def collect(self) -> int:
        """Remove what a killed process left behind; how many files. Call it once, before the first request."""
        async with self._turn:
            async with reading(self._engine) as connection:
                named = {row.digest for row in (await connection.execute(sa.select(artefacts.c.digest).distinct())).all()}
            return await asyncio.to_thread(self._sweep, named)

    async def put(
        self, owner: str, thread_id: str, rendered: Rendered, citations: Sequence[CitationEvent], read: frozenset[str] = frozenset()
    ) -> Artefact:
        """See the port."""
        digest = hashlib.sha256(rendered.content).hexdigest()
        name = rendered.name[-_NAME_CHARACTERS:]
        made = Artefact(f"af_{secrets.token_hex(12)}", name, rendered.media_type, len(rendered.content), digest, thread_id, time.time())
        spaces = sorted(read.union(citation.space for citation in citations) - {""})  # "" = quoted from the caller's own draft
        async with self._turn:
            await asyncio.to_thread(self._keep, rendered.content, digest)
            try:
                async with writing(self._engine) as connection:
                    held = sa.select(sa.func.coalesce(sa.func.sum(artefacts.c.size_bytes), 0), sa.func.count()).where(artefacts.c.owner == owner)
                    used, count = (await connection.execute(held)).one()
                    if used + made.size_bytes > self._quota_bytes or count >= MOST_OF_ONE_OWNER:
                        raise ApplianceError(
                            "quota_exceeded", f"your files would take more than {self._quota_bytes:,} bytes", hint="delete old ones, or their threads"
                        )
                    fields = {column: getattr(made, column) for column in ("id", "thread_id", "name", "media_type", "size_bytes", "digest", "created_at")}
                    await connection.execute(sa.insert(artefacts).values(**fields, owner=owner, spaces=spaces))
            except BaseException:
                await asyncio.shield(self._drop({digest}))
                raise
        return made

    async def get(self, owner: str, artefact_id: str) -> tuple[Artefact, frozenset[str]]:
        """See the port."""
        query = sa.select(artefacts).where(artefacts.c.id == artefact_id, artefacts.c.owner == owner)
        async with reading(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise not_found("artefact")
        return _artefact(row), frozenset(row.spaces)

    async def list(self, owner: str, thread_id: str | None, limit: int) -> Sequence[tuple[Artefact, frozenset[str]]]:
        """See the port."""
        query = sa.select(artefacts).where(artefacts.c.owner == owner).order_by(artefacts.c.created_at.desc(), artefacts.c.id).limit(limit)
        if thread_id is not None:
            query = query.where(artefacts.c.thread_id == thread_id)
        async with reading(self._engine) as connection:
            return [(_artefact(row), frozenset(row.spaces)) for row in (await connection.execute(query)).all()]

    async def open(self, owner: str, artefact_id: str) -> tuple[Artefact, Path]:
        """See the port."""
        artefact, _ = await self.get(owner, artefact_id)
        path = self._path(artefact.digest)
        if not await asyncio.to_thread(path.is_file):
            raise not_found("artefact")  # its thread was deleted in this moment
        return artefact, path

    async def delete(self, owner: str, artefact_id: str) -> None:
        """See the port."""
        if not await self._remove(artefacts.c.owner == owner, artefacts.c.id == artefact_id):
            raise not_found("artefact")

    async def forget_thread(self, owner: str, thread_id: str) -> int:
        """See the port."""
        return await self._remove(artefacts.c.owner == owner, artefacts.c.thread_id == thread_id)

    async def _remove(self, *where: sa.ColumnElement[bool]) -> int:
        async with self._turn:
            async with writing(self._engine) as connection:
                digests = [row.digest for row in (await connection.execute(sa.select(artefacts.c.digest).where(*where))).all()]
                await connection.execute(sa.delete(artefacts).where(*where))
            await self._drop(set(digests))
        return len(digests)

    async def _drop(self, digests: set[str]) -> None:
        """Remove the blobs that no row names any more. The caller has the turn."""
        if not digests:
            return
        async with reading(self._engine) as connection:
            rows = await connection.execute(sa.select(artefacts.c.digest).where(artefacts.c.digest.in_(digests)).distinct())
            left = {row.digest for row in rows.all()}
        for digest in digests - left:
            await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _keep(self, content: bytes, digest: str) -> None:
        target = self._path(digest)
        try:
            if not target.exists():
                handle, name = tempfile.mkstemp(dir=self._temporary)
                temporary = Path(name)
                try:
                    with os.fdopen(handle, "wb") as out:
                        out.write(content)
                        out.flush()
                        os.fsync(out.fileno())
                    target.parent.mkdir(exist_ok=True)
                    temporary.rename(target)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
            for folder in (target.parent, self._folder):  # also when it was there: who renamed it may have been killed before these lines
                _sync(folder)
        except OSError as exc:
            if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise ApplianceError("disk_full", "the disk is full", hint="free space under the appliance home, then try again") from exc
            raise

    def _sweep(self, named: set[str]) -> int:
        waste = [*self._temporary.iterdir(), *(path for path in self._folder.glob("??/*") if _DIGEST.fullmatch(path.name) and path.name not in named)]
        for path in waste:
            path.unlink(missing_ok=True)
        return len(waste)


def _artefact(row: sa.Row[Any]) -> Artefact:
    return Artefact(row.id, row.name, row.media_type, row.size_bytes, row.digest, row.thread_id, row.created_at)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

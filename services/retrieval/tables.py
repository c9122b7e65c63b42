"""Tables of the document catalogue, as the code of this release sees them.

A document has versions; search sees exactly the chunks of ``live_version``. ``newest_version`` may be ahead while a
replacement is parsed; a ``failed`` version could not be read, and the newest one after the live one that has not failed is worked on. ``garbage`` holds ids of chunks whose rows are gone but whose index entries may not be.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from appliance.kit.sql import Schema

SCHEMA: Final = Schema(name="retrieval", migrations="services.retrieval.migrations", head="0001")

metadata: Final = sa.MetaData()

documents: Final = sa.Table(
    "documents",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("space", sa.String(63), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("live_version", sa.Integer, nullable=False),
    sa.Column("newest_version", sa.Integer, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

versions: Final = sa.Table(
    "versions",
    metadata,
    sa.Column("document_id", sa.String(40), sa.ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("media_type", sa.String(120), nullable=False),
    sa.Column("language", sa.String(8), nullable=True),
    sa.Column("title", sa.Text, nullable=True),
    sa.Column("text", sa.LargeBinary, nullable=True),
    sa.Column("length", sa.Integer, nullable=True),
    sa.Column("pages", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("page_count", sa.Integer, nullable=True),
    sa.Column("warnings", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("chunks", sa.Integer, nullable=False, default=0),
    sa.Column("embedded_chunks", sa.Integer, nullable=False, default=0),
    sa.Column("failed", sa.Boolean, nullable=False, default=False),
)

chunks: Final = sa.Table(
    "chunks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("document_id", sa.String(40), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("page", sa.Integer, nullable=True),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("heading_path", sa.JSON, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("terms", sa.LargeBinary, nullable=False),
    sa.Column("embedded", sa.Boolean, nullable=False),
)

garbage: Final = sa.Table("garbage", metadata, sa.Column("chunk_id", sa.Integer, primary_key=True))

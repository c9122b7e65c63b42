"""Tables of the knowledge base, as the code of this release sees them: the one truth that all three indexes are made from.

Every change takes the next ``version``; an index that has applied all changes up to a version is at that version. ``knowledge_removed`` keeps the
removals that some index may not have seen; ``row_id`` NULL there means the whole space. ``facts`` is what an entry states about tasks (``graph_facts``).
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from appliance.kit.sql import Schema

SCHEMA: Final = Schema(name="knowledge", migrations="services.knowledge.migrations", head="0002")

metadata: Final = sa.MetaData()

entries: Final = sa.Table(
    "knowledge_entries",
    metadata,
    sa.Column("row_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False),
    sa.Column("space", sa.String(63), nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("key", sa.String(200), nullable=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("embedding", sa.LargeBinary, nullable=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("author", sa.String(200), nullable=False, server_default=""),
)

relations: Final = sa.Table(
    "knowledge_relations",
    metadata,
    sa.Column("source", sa.Integer, sa.ForeignKey("knowledge_entries.row_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("target", sa.Integer, sa.ForeignKey("knowledge_entries.row_id", ondelete="CASCADE"), primary_key=True),
)

removed: Final = sa.Table(
    "knowledge_removed",
    metadata,
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("space", sa.String(63), nullable=False),
    sa.Column("row_id", sa.Integer, nullable=True),
    sa.Column("id", sa.String(40), nullable=True),
)

changes: Final = sa.Table(
    "knowledge_changes", metadata, sa.Column("name", sa.String(16), primary_key=True), sa.Column("last", sa.BigInteger, nullable=False)
)

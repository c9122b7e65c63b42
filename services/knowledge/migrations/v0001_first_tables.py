"""Entries, their relations, what was removed, and the number of the last change."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "knowledge_entries",
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
        sa.UniqueConstraint("id", name="knowledge_entries_id"),
        sa.UniqueConstraint("space", "key", name="knowledge_entries_key"),
        sa.UniqueConstraint("space", "digest", name="knowledge_entries_content"),
        sqlite_autoincrement=True,  # an id is never used twice: a late delete in an index cannot hit a new entry
    )
    op.create_index("knowledge_entries_version", "knowledge_entries", ["version"])
    op.create_index("knowledge_entries_space", "knowledge_entries", ["space", "version"])
    op.create_index("knowledge_entries_model", "knowledge_entries", ["model"])
    op.create_table(
        "knowledge_relations",
        sa.Column("source", sa.Integer, sa.ForeignKey("knowledge_entries.row_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("target", sa.Integer, sa.ForeignKey("knowledge_entries.row_id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("knowledge_relations_target", "knowledge_relations", ["target"])
    op.create_table(
        "knowledge_removed",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("space", sa.String(63), nullable=False),
        sa.Column("row_id", sa.Integer, nullable=True),
        sa.Column("id", sa.String(40), nullable=True),
    )
    op.create_index("knowledge_removed_space", "knowledge_removed", ["space", "version"])
    op.create_table("knowledge_changes", sa.Column("name", sa.String(16), primary_key=True), sa.Column("last", sa.BigInteger, nullable=False))

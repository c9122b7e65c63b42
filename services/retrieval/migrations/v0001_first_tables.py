"""Documents, their text, their chunks, and what is still to be removed from the indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "documents",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("space", sa.String(63), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("live_version", sa.Integer, nullable=False),
        sa.Column("newest_version", sa.Integer, nullable=False),
        sa.Column("error", sa.JSON, nullable=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.UniqueConstraint("space", "name", name="documents_name"),
    )
    op.create_index("documents_created", "documents", ["created_at", "id"])
    op.create_index("documents_status", "documents", ["status"])
    op.create_table(
        "versions",
        sa.Column("document_id", sa.String(40), sa.ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.String(120), nullable=False),
        sa.Column("language", sa.String(8), nullable=True),
        sa.Column("title", sa.Text, nullable=True),
        sa.Column("text", sa.LargeBinary, nullable=True),
        sa.Column("length", sa.Integer, nullable=True),
        sa.Column("pages", sa.JSON, nullable=True),
        sa.Column("page_count", sa.Integer, nullable=True),
        sa.Column("warnings", sa.JSON, nullable=True),
        sa.Column("chunks", sa.Integer, nullable=False, server_default="0"),
        sa.Column("embedded_chunks", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failed", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index("versions_sha256", "versions", ["sha256"])
    op.create_table(
        "chunks",
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
        sqlite_autoincrement=True,  # an id is never used twice: a late delete in an index cannot hit a new chunk
    )
    op.create_index("chunks_document", "chunks", ["document_id", "version"])
    op.create_index("chunks_unembedded", "chunks", ["id"], sqlite_where=sa.text("embedded = 0"), postgresql_where=sa.text("NOT embedded"))
    op.create_table("garbage", sa.Column("chunk_id", sa.Integer, primary_key=True))

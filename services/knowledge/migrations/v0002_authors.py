"""Entries say who wrote them, so that not every editor changes what others wrote. Those from before have no author: owners of their space change them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column, in place: a batch would drop the table, and cascade."""
    op.add_column("knowledge_entries", sa.Column("author", sa.String(200), nullable=False, server_default=""))


def downgrade() -> None:
    """Older code knows no authors."""
    op.drop_column("knowledge_entries", "author")

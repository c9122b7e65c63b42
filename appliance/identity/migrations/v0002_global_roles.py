"""Users and keys may carry the role of an agent or operator.

The way back parks those roles in a table of its own, which older code does not look at, and the way forward takes them out again. Until then the
users are members and the keys ordinary ones with the same spaces: an older release has no tasks, so they may do nothing new there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_PARKED = sa.table("identity_parked_roles", sa.column("kind"), sa.column("id"), sa.column("role"))
_USERS = sa.table("identity_users", sa.column("name"), sa.column("global_role"))
_KEYS = sa.table("identity_keys", sa.column("id"), sa.column("global_role"))
_HOLDERS = (("user", _USERS, _USERS.c.name), ("key", _KEYS, _KEYS.c.id))


def upgrade() -> None:
    """Add the columns; NULL is what everyone had. Adding and dropping columns in place: a batch would drop the table, and cascade."""
    op.add_column("identity_users", sa.Column("global_role", sa.String(32), nullable=True))
    op.add_column("identity_keys", sa.Column("global_role", sa.String(32), nullable=True))
    if sa.inspect(op.get_bind()).has_table(_PARKED.name):
        for kind, holders, name in _HOLDERS:
            parked = sa.select(_PARKED.c.role).where(_PARKED.c.kind == kind, _PARKED.c.id == name).scalar_subquery()
            op.execute(sa.update(holders).values(global_role=parked))
        op.drop_table(_PARKED.name)


def downgrade() -> None:
    """Park the roles and drop the columns."""
    op.create_table(
        _PARKED.name,
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(32), nullable=False),
    )
    for kind, holders, name in _HOLDERS:
        held = sa.select(sa.literal(kind), name, holders.c.global_role).where(holders.c.global_role.is_not(None))
        op.execute(sa.insert(_PARKED).from_select(["kind", "id", "role"], held))
        op.drop_column(holders.name, "global_role")

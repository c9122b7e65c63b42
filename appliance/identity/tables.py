"""Tables of identity, as the code of this release sees them. Secrets appear only as hashes.

Times are whole seconds since the epoch (UTC). A space is referred to by its name, which never changes.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from appliance.kit.sql import Schema

SCHEMA: Final = Schema(name="identity", migrations="appliance.identity.migrations", head="0002")

metadata: Final = sa.MetaData()

users: Final = sa.Table(
    "identity_users",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("password_hash", sa.String(200), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("requests_per_minute", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("global_role", sa.String(32), nullable=True),  # an agent's or operator's; ``role`` is then member, as older releases read it
)

spaces: Final = sa.Table(
    "identity_spaces",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

retired_spaces: Final = sa.Table(  # names of removed spaces whose documents are still to be deleted: nobody may take them yet
    "identity_retired_spaces",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("retired_at", sa.BigInteger, nullable=False),
)

members: Final = sa.Table(
    "identity_members",
    metadata,
    sa.Column("space", sa.String(63), sa.ForeignKey("identity_spaces.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("user", sa.String(64), sa.ForeignKey("identity_users.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
)

keys: Final = sa.Table(
    "identity_keys",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("owner", sa.String(64), sa.ForeignKey("identity_users.name", ondelete="CASCADE"), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("spaces", sa.JSON, nullable=True),
    sa.Column("requests_per_minute", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=True),
    sa.Column("revoked_at", sa.BigInteger, nullable=True),
    sa.Column("global_role", sa.String(32), nullable=True),
)

refresh_tokens: Final = sa.Table(
    "identity_refresh_tokens",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),
    sa.Column("family", sa.String(32), nullable=False, index=True),
    sa.Column("user", sa.String(64), sa.ForeignKey("identity_users.name", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("used_at", sa.BigInteger, nullable=True),
    sa.Column("revoked_at", sa.BigInteger, nullable=True),
)

generation: Final = sa.Table(
    "identity_generation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

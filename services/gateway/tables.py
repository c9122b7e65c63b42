"""Tables of the gateway, as the code of this release sees them. Times are seconds since the epoch (UTC)."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from appliance.kit.sql import Schema

SCHEMA: Final = Schema(name="gateway", migrations="services.gateway.migrations", head="0002")

metadata: Final = sa.MetaData()

threads: Final = sa.Table(
    "gateway_threads",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("spaces", sa.JSON, nullable=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Index("gateway_threads_by_owner", "owner", "updated_at"),
)

messages: Final = sa.Table(
    "gateway_messages",
    metadata,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("thread_id", sa.String(40), sa.ForeignKey("gateway_threads.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("citations", sa.JSON, nullable=False),
    sa.Column("model", sa.String(200), nullable=True),
    sa.Column("created_at", sa.Float, nullable=False),
)

accounts: Final = sa.Table(
    "gateway_accounts",
    metadata,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("subject", sa.String(200), primary_key=True),
    sa.Column("account", sa.String(200), primary_key=True),
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("space", sa.String(200), primary_key=True),
    sa.Column("thread", sa.String(200), primary_key=True),
    sa.Column("task", sa.String(200), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("saved_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_hits", sa.BigInteger, nullable=False),
    sa.Column("tool_calls", sa.BigInteger, nullable=False),
    sa.Column("cost_nano", sa.BigInteger, nullable=False),
    sa.Index("gateway_accounts_by_account", "account", "day"),
)

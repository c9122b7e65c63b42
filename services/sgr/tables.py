"""Tables of schema-guided answers, as the code of this release sees them. Times are seconds since the epoch (UTC)."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from appliance.kit.sql import Schema

SCHEMA: Final = Schema(name="sgr", migrations="services.sgr.migrations", head="0001")

metadata: Final = sa.MetaData()

artefacts: Final = sa.Table(
    "sgr_artefacts",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("thread_id", sa.String(40), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("media_type", sa.String(200), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("spaces", sa.JSON, nullable=False),  # that its citations came from
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Index("sgr_artefacts_by_owner", "owner", "created_at"),
    sa.Index("sgr_artefacts_by_digest", "digest"),
)

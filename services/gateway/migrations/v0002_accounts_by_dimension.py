"""Token accounts by account, model, space, thread and task, with cached tokens, cache hits, tool calls and cost; what was counted before stays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NAMES = ("subject", "account", "model", "space", "thread", "task")
_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "saved_tokens", "cache_hits", "tool_calls", "cost_nano")


def upgrade() -> None:
    """Make the new table and bring the old rows over: their model, space, thread and task are not known."""
    op.create_table(
        "gateway_accounts",
        sa.Column("day", sa.String(10), primary_key=True),
        *(sa.Column(name, sa.String(200), primary_key=True) for name in _NAMES),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
    )
    op.create_index("gateway_accounts_by_account", "gateway_accounts", ["account", "day"])
    op.execute(
        sa.text(
            "INSERT INTO gateway_accounts (day, subject, account, model, space, thread, task, requests, prompt_tokens, completion_tokens,"
            " cached_tokens, saved_tokens, cache_hits, tool_calls, cost_nano)"
            " SELECT day, subject, subject, '', '', '', '', requests, prompt_tokens, completion_tokens, 0, 0, 0, 0, 0 FROM gateway_usage"
        )
    )
    op.drop_table("gateway_usage")


def downgrade() -> None:
    """Sums by subject and day, as the earlier release knows them."""
    op.create_table(
        "gateway_usage",
        sa.Column("subject", sa.String(200), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    )
    op.execute(
        sa.text(
            "INSERT INTO gateway_usage (subject, day, requests, prompt_tokens, completion_tokens)"
            " SELECT subject, day, SUM(requests), SUM(prompt_tokens), SUM(completion_tokens) FROM gateway_accounts GROUP BY subject, day"
        )
    )
    op.drop_index("gateway_accounts_by_account", "gateway_accounts")
    op.drop_table("gateway_accounts")

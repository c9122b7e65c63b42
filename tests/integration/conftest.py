"""The ``box`` that HTTP tests speak to: today the scripted bed behind the real server. Point it at another box by yielding another ``RunningBox``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.gateway.settings import GatewaySettings
from tests.integration.gateway_bed import RunningBox, running_bed

SMALL = 200_000
LOOSE = GatewaySettings(
    max_json_bytes=SMALL,
    max_upload_bytes=SMALL,
    max_upload_request_bytes=4 * SMALL,
    logins_per_minute=100_000,
    chat_rate_factor=1000.0,
    api_rate_factor=1000.0,
    search_rate_factor=1000.0,
    upload_rate_factor=1000.0,
    work_rate_factor=1000.0,
)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBox]:
    """A running box with two spaces, an administrator, a reader and a stranger."""
    with running_bed(tmp_path_factory.mktemp("box"), LOOSE, with_tasks=True) as running:
        yield running

"""Requests generated from the OpenAPI document, valid and not, against the running box: no 5xx, and every error in our shape."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from tests.integration.conftest import LOOSE
from tests.integration.gateway_bed import RunningBox, running_bed

EXAMPLES_PER_OPERATION = 25
NEW = ("/api/reports", "/api/sgr/format", "/api/templates", "/api/artefacts/{artefact_id}", "/api/tools", "/api/agents", "/api/usage")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBox]:
    """Every part that a gateway may have."""
    with running_bed(tmp_path_factory.mktemp("whole"), LOOSE, with_tasks=True, whole=True) as running:
        yield running


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the box lives in this process, and its timers have jitter
def test_no_generated_request_meets_a_server_error(box: RunningBox) -> None:
    schema = schemathesis.openapi.from_url(f"{box.url}/openapi.json")
    failures: list[str] = []
    operations = 0
    paths = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        operations += 1
        paths.add(operation.path)
        if operation.path == "/api/events":  # does not end; test_event_feeds reads it
            continue

        @settings(
            max_examples=EXAMPLES_PER_OPERATION,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=True,
        )
        @given(case=operation.as_strategy())
        def probe(case: schemathesis.Case) -> None:
            response = case.call(headers={"authorization": f"Bearer {box.admin_key}"}, timeout=10)
            if response.status_code != 503 or response.json()["error"]["code"] != "unavailable":  # a part that this bed does not have
                case.validate_response(response, checks=[not_a_server_error])
            if response.status_code >= 400:
                assert set(response.json()["error"]) == {"message", "type", "param", "code", "hint"}

        try:
            probe()
        except Exception as exc:  # noqa: BLE001 - all operations are tried before the test fails
            failures.append(f"{operation.method} {operation.path}: {exc}")
    assert operations > 30
    assert set(NEW) <= paths
    assert not failures, "\n".join(failures)

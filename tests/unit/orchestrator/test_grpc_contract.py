"""The .proto, the generated code, the Protocols and the values agree; structs survive the way through their messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from appliance.contracts.orchestrator.v1 import api, orchestrator_pb2, values
from appliance.contracts.orchestrator.v1.client import PROTOCOLS, service
from appliance.kit.errors import ApplianceError
from appliance.kit.rpc_contract import methods
from appliance.kit.struct_messages import REQUIRED, allows_none, fill, struct_of

ROOT = Path(__file__).parents[3]
PROTO = "appliance/contracts/orchestrator/v1/orchestrator.proto"
CARRIED = [
    values.TaskError, values.RetryPolicy, values.TaskSpec, values.Task, values.StepRecord, values.PerformanceProfile, values.ExecutorCapabilities,
    values.PerformanceMetrics, values.Executor, values.Checkpoint, values.ApprovalRequest, values.TaskEvent, api.TaskFilter,
]  # fmt: skip


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def plain(value: Any) -> Any:
    """Comparable: two Raw of the same bytes are not equal."""
    return msgspec.json.decode(msgspec.json.encode(value))


def test_the_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}", PROTO]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    generated = Path(PROTO.replace(".proto", "_pb2.py"))
    assert (tmp_path / generated).read_bytes() == (ROOT / generated).read_bytes()


def test_every_protocol_of_the_contract_is_a_service() -> None:
    protocols = {name for name, value in vars(api).items() if getattr(value, "_is_protocol", False) and value.__module__ == api.__name__}
    assert protocols == PROTOCOLS.keys() == {one.name for one in orchestrator_pb2.DESCRIPTOR.services_by_name.values()}


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_method_is_an_rpc_with_its_parameters(name: str) -> None:
    found = methods(service(name), PROTOCOLS[name])
    assert found
    for method in found.values():
        for field in method.request.DESCRIPTOR.fields:
            if field.message_type is None and not field.is_repeated:  # optional on the wire exactly where Python has a default
                kind, default = method.parameters[field.name]
                assert field.has_presence == (default is not REQUIRED or allows_none(kind)), f"{method.path} {field.name}"


@pytest.mark.parametrize("kind", CARRIED, ids=lambda kind: kind.__name__)
def test_a_message_has_the_fields_of_its_struct_in_their_order(kind: type[msgspec.Struct]) -> None:
    message = getattr(orchestrator_pb2, kind.__name__)
    assert [field.name for field in message.DESCRIPTOR.fields] == list(kind.__struct_fields__)


def test_a_service_that_has_drifted_from_its_protocol_is_refused_at_import() -> None:
    with pytest.raises(TypeError, match="differ in"):
        methods(service("Tasks"), api.Work)


def full_task() -> values.Task:
    return values.Task(
        id="t_1", type="code", description="счёт", input_data=raw({"n": [1, None]}), priority=0, deadline=0.0, dependencies=("t_0", "t_2"),
        assigned_executor="", status=values.TaskStatus.AWAITING_APPROVAL, created_at=1.5, updated_at=2.5, checkpoints=("c_1",), metadata=raw({}), space="lab",
        owner="user:anna", key="k", executor_type=values.ExecutorType.LOCAL_LLM, attempt=2, progress=0.5, note="n", parent="t_9", result=raw([1]),
        error=values.TaskError(code="cancelled", message="m", diagnostics=raw({"a": 1})), blocked_by=("t_0",), not_before=3.0,
        fencing_token=2**53, lease_until=4.0, version=7,
    )  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        full_task(),
        msgspec.structs.replace(full_task(), deadline=None, error=None, key=None, executor_type=None, assigned_executor=None, parent=None),
        values.TaskSpec(type="x"),
        values.TaskSpec(type="x", priority=0, output_schema=raw({}), retry=values.RetryPolicy(max_attempts=0), dependencies=("a",)),
        values.ExecutorCapabilities(supported_task_types=("*",), input_schema={"type": "object"}),
        values.StepRecord(name="s", result=raw(None)),
        api.TaskFilter(status=values.TaskStatus.FAILED, limit=0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_as_it_was(value: msgspec.Struct) -> None:
    message = getattr(orchestrator_pb2, type(value).__name__)()
    fill(message, value)
    back = struct_of(type(message).FromString(message.SerializeToString()), type(value))
    assert plain(back) == plain(value)
    assert [type(getattr(back, name)) for name in value.__struct_fields__] == [type(getattr(value, name)) for name in value.__struct_fields__]


def test_what_a_foreign_client_leaves_out_has_the_default_of_the_contract() -> None:
    spec = struct_of(orchestrator_pb2.TaskSpec(type="x"), values.TaskSpec)
    assert (spec.priority, spec.space, bytes(spec.input_data), spec.retry.max_attempts) == (50, "default", b"{}", 3)


@pytest.mark.parametrize(
    ("message", "kind", "told"),
    [
        (orchestrator_pb2.TaskSpec(type="x", input_data=b"{oops"), values.TaskSpec, "input_data"),
        (orchestrator_pb2.TaskSpec(type="x", input_data=b""), values.TaskSpec, "input_data"),
        (orchestrator_pb2.TaskSpec(type="x", metadata=b"[" * 100_000), values.TaskSpec, "metadata"),
        (orchestrator_pb2.TaskSpec(type="x", executor_type="abacus"), values.TaskSpec, "executor_type"),
        (orchestrator_pb2.StepRecord(name="s", result=b"\xff"), values.StepRecord, "result"),
    ],
)
def test_bytes_that_are_no_json_and_unknown_names_are_told(message: Any, kind: type[Any], told: str) -> None:
    with pytest.raises(ApplianceError, match=told) as caught:
        struct_of(message, kind)
    assert caught.value.code == "invalid_request"

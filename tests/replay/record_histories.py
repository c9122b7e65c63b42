"""Writes the committed histories that do not exist yet: ``python -m tests.replay.record_histories``. A file that is there is never written again.

A history is what the log would hold after the commands of ``LIVES``: ``{"task", "entries": [{"seq", "envelope"}], "expected": every field of the state}``.
When events change their shape, add a life under a new name that shows it; the old files stay, and must replay for ever.
"""

from pathlib import Path

import msgspec

from appliance.contracts.orchestrator.v1.values import ApprovalStatus, ExecutorType, RetryPolicy, StepRecord, TaskError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.domain.decide import decide
from services.orchestrator.domain.task_state import TaskState, apply_envelope
from services.orchestrator.domain.upcasting import encode_envelope

FOLDER = Path(__file__).parent / "histories"
START = 1_780_000_000.0
TASK = "t_01900000000deadbeefdeadbeef"


class Recorder:
    """A task's log, one command after the other; time passes by itself."""

    def __init__(self) -> None:
        self.state: TaskState | None = None
        self.entries: list[dict] = []
        self.now = START
        self.seq = 10

    def do(self, *commands: cm.Command, by: str = "user:anna", after: float = 1.0) -> "Recorder":
        self.now += after
        self.seq += 3
        events: list = []
        tentative = self.state
        for command in commands:
            fresh = decide(tentative, command, self.now)
            events += fresh
            step = ev.Envelope(v=ev.SCHEMA_VERSION, at=self.now, by=by, events=tuple(fresh))
            tentative = apply_envelope(tentative, TASK, step, self.seq)
        envelope = ev.Envelope(v=ev.SCHEMA_VERSION, at=self.now, by=by, cmd=f"cmd{self.seq}", trace="00-trace", events=tuple(events))
        self.entries.append({"seq": self.seq, "envelope": msgspec.Raw(encode_envelope(envelope))})
        self.state = apply_envelope(self.state, TASK, envelope, self.seq)
        return self

    def create(self, **fields) -> "Recorder":
        values = {"type": "code_generation", "space": "default", "owner": "user:anna", "description": "Пример", "input_data": raw({"n": 1})} | fields
        return self.do(cm.Create(created=ev.TaskCreated(**values)))

    def assign(self, executor: str = "e_1", incarnation: int = 1) -> "Recorder":
        command = cm.Assign(executor=executor, incarnation=incarnation, lease_until=self.now + 11, dependencies_met=True, models=("m@1",))
        return self.do(command, by="executor:" + executor)

    def report(self, progress: float, *steps: str) -> "Recorder":
        records = tuple(StepRecord(name=name, result=raw({"step": name})) for name in steps)
        return self.do(cm.Report(token=self.token, lease_until=self.now + 11, progress=progress, note="works", steps=records), by="executor:e_1")

    def complete(self) -> "Recorder":
        return self.do(cm.Complete(token=self.token, result=raw({"answer": 42}), metrics=raw({"promptTokens": 7})), by="executor:e_1")

    def fail(self, *, retryable: bool = True) -> "Recorder":
        error = TaskError(code="executor_failed", message="no disk", diagnostics=raw({"free": 0}))
        return self.do(cm.Fail(token=self.token, error=error, retryable=retryable, jitter=0.5), by="executor:e_1")

    def ask(self, approval: str = "a_1", **fields) -> "Recorder":
        values = {
            "token": self.token, "approval": approval, "action": "mail.send", "arguments": raw({"to": "b@box"}), "arguments_digest": "d1",
            "context": raw({"why": "report"}), "requested_by": "e_1", "expires_at": None, "default_action": "reject", "suggestion": "approve",
        } | fields  # fmt: skip
        return self.do(cm.RequestApproval(**values), by="executor:e_1")

    def answer(self, status: ApprovalStatus, **fields) -> "Recorder":
        return self.do(cm.DecideApproval(approval="a_1", status=status, by="user:olga", reason="seen", **fields), by="user:olga")

    def effect(self) -> "Recorder":
        self.do(cm.BeginEffect(token=self.token, approval="a_1"), by="executor:e_1")
        return self.do(cm.FinishEffect(token=self.token, approval="a_1", outcome=raw({"sent": True})), by="executor:e_1")

    def checkpoint(self, number: int, base: str | None = None) -> "Recorder":
        return self.do(
            cm.SaveCheckpoint(token=self.token, checkpoint=f"c_{number}", base=base, size_bytes=100, digest="ab", number=number), by="executor:e_1"
        )

    @property
    def token(self) -> int:
        return self.state.token


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def compacted() -> Recorder:
    life = Recorder().create().assign().report(0.3, "one", "two").checkpoint(1).checkpoint(2, "c_1").ask()
    life.do(cm.Compact(), by="system:janitor")
    life.entries = life.entries[-1:]  # the log was purged below
    return life.answer(ApprovalStatus.APPROVED).effect().complete()


LIVES = {
    "simple": lambda: Recorder().create().assign().report(0.5, "one").complete(),
    "created_and_assigned_at_once": lambda: (
        Recorder()
        .do(
            cm.Create(created=ev.TaskCreated(type="work", space="team.a", owner="user:anna", key="k", output_schema=raw({"type": "object"}))),
            cm.Assign(executor="e_1", incarnation=3, lease_until=START + 9, dependencies_met=True, started=True),
        )
        .complete()
    ),
    "retried": lambda: Recorder().create().assign().report(0.4, "one").fail().do(cm.SetPriority(priority=80), after=30).assign().complete(),
    "dead_lettered": lambda: Recorder().create(retry=RetryPolicy(max_attempts=2)).assign().fail().do(cm.SetPriority(priority=1), after=60).assign().fail(),
    "failed_for_good_then_reopened": lambda: Recorder().create().assign().report(0.2, "one").fail(retryable=False).do(cm.Reopen(reason="mended")).assign().complete(),
    "approval_approved": lambda: Recorder().create().assign().ask().answer(ApprovalStatus.APPROVED, grant="session").effect().complete(),
    "approval_modified": lambda: Recorder().create().assign().ask().answer(ApprovalStatus.MODIFIED, modified_arguments=raw({"to": "c@box"})).effect().complete(),
    "approval_rejected": lambda: Recorder().create().assign().ask().answer(ApprovalStatus.REJECTED).fail(retryable=False),
    "approval_expired": lambda: (
        Recorder().create().assign().ask(expires_at=START + 60).do(cm.ExpireApproval(approval="a_1"), by="system:clock", after=100).complete()
    ),
    "approval_by_policy": lambda: Recorder().create().assign().ask(verdict=ApprovalStatus.APPROVED, verdict_by="system:policy").effect().complete(),
    "approval_answered_after_the_claim_was_lost": lambda: (
        Recorder()
        .create()
        .assign()
        .ask()
        .do(cm.ExpireLease(token=16, reason="silent", most_losses=5), by="system:clock", after=60)
        .answer(ApprovalStatus.APPROVED)
        .assign("e_2")
        .effect()
        .complete()
    ),
    "cancelled": lambda: Recorder().create().assign().ask().do(cm.Cancel(reason="not needed")),
    "paused_and_resumed": lambda: Recorder().create().assign().report(0.6, "one").do(cm.Pause(reason="night")).do(cm.Resume()).assign("e_2").complete(),
    "paused_with_a_question": lambda: Recorder().create().assign().ask().do(cm.Pause()).answer(ApprovalStatus.APPROVED).do(cm.Resume()),
    "lease_lost": lambda: (
        Recorder().create().assign().report(0.6, "one").do(cm.ExpireLease(token=16, reason="silent", most_losses=5), after=60).assign("e_2").complete()
    ),
    "leases_lost_too_often": lambda: (
        Recorder()
        .create()
        .assign()
        .do(cm.ExpireLease(token=16, reason="incarnation", most_losses=2))
        .assign("e_2")
        .do(cm.ExpireLease(token=22, reason="silent", most_losses=2, jitter=-1.0))
    ),
    "continued": lambda: (
        Recorder()
        .create(executor_type=ExecutorType.CLAUDE_OPUS)
        .assign()
        .checkpoint(1)
        .do(cm.ContinueLater(token=16, reason="context", checkpoint="c_1"))
        .assign("e_2")
        .complete()
    ),
    "forked": lambda: (
        Recorder()
        .create(
            forked_from="t_0", steps={"one": raw({"step": "one"})}, checkpoint=ev.CheckpointSaved(checkpoint="c_0", number=1, size_bytes=9, digest="cd")
        )
        .assign()
        .complete()
    ),
    "compacted": compacted,
    "dependency_failed": lambda: Recorder().create(dependencies=("t_0",)).do(cm.FailDependent(dependency="t_0"), by="system:clock"),
    "deadline_over": lambda: Recorder().create(deadline=START + 50).assign().do(cm.PassDeadline(), by="system:clock", after=100),
    "dropped": lambda: Recorder().create().assign().complete().do(cm.Drop(), by="system:janitor"),
    "child_with_timeout": lambda: (
        Recorder().create(parent="t_0", timeout_seconds=5.0).assign().do(cm.ExpireLease(token=16, reason="timeout", most_losses=5), after=10)
    ),
}  # fmt: skip


def fields_of(state: TaskState) -> dict:
    """Every field as plain JSON, defaults included."""
    return {name: msgspec.json.decode(msgspec.json.encode(getattr(state, name))) for name in state.__struct_fields__}


def main() -> None:
    for name, live in LIVES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            continue
        life = live()
        body = {"task": TASK, "entries": life.entries, "expected": fields_of(life.state)}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(body), indent=1) + b"\n")
        print(path.name)


if __name__ == "__main__":
    main()

"""Random commands against the domain: stale tokens, repeats, jumps of the clock. What the docstrings of the domain promise must hold after each."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.contracts.orchestrator.v1.values import ApprovalStatus, RetryPolicy, StepRecord, TaskError, TaskStatus
from appliance.kit.errors import ApplianceError
from services.orchestrator.domain import commands as cm
from services.orchestrator.domain import events as ev
from services.orchestrator.domain.decide import decide
from services.orchestrator.domain.task_state import TaskState, apply_envelope
from services.orchestrator.domain.upcasting import decode_envelope, encode_envelope

TASK_ID = "t_1"
REFUSALS = {"stale_claim", "task_state", "not_found", "effect_unknown", "invalid_request", "conflict", "overloaded"}
MOST_LOSSES = 3
NOT_REPEATABLE = (cm.Report, cm.BeginEffect, cm.Reopen, cm.Compact)

tokens = st.sampled_from(["held", "held", "held", "held", "held", "older", "zero", "foreign"])
errors = st.builds(TaskError, code=st.just("executor_failed"), message=st.sampled_from(["no", "disk", "net"]))
jitters = st.floats(-1, 1)
steps = st.lists(
    st.builds(StepRecord, name=st.sampled_from(["a", "b", "c"]), result=st.sampled_from([msgspec.Raw(b"1"), msgspec.Raw(b'{"x":[]}')])), max_size=3
)


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state: TaskState | None = None
        self.log: list[tuple[int, bytes]] = []
        self.now = 1_800_000_000.0
        self.seq = 0
        self.tokens = [0]
        self.begun: list[tuple[str, str]] = []
        self.claims = 0
        self.numbers = 0
        self.last: cm.Command | None = None

    @initialize(
        attempts=st.integers(1, 3),
        factor=st.floats(1, 10),
        deadline=st.sampled_from([None, 5.0, 500.0]),
        dependencies=st.sampled_from([(), ("t_0",)]),
    )
    def create(self, attempts: int, factor: float, deadline: float | None, dependencies: tuple[str, ...]) -> None:
        created = ev.TaskCreated(
            type="work", space="default", owner="user:anna", retry=RetryPolicy(max_attempts=attempts, factor=factor), dependencies=dependencies,
            deadline=deadline and self.now + deadline, input_data=msgspec.Raw(b'{"n": 1}'),
        )  # fmt: skip
        self.do(cm.Create(created=created))

    @rule(seconds=st.sampled_from([0.5, 30.0, 4000.0, -20.0, -4000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        executor=st.sampled_from(["e_1", "e_2"]), incarnation=st.integers(1, 2), started=st.booleans(), met=st.sampled_from([True, True, True, False])
    )
    def assign(self, executor: str, incarnation: int, started: bool, met: bool) -> None:
        self.do(cm.Assign(executor=executor, incarnation=incarnation, lease_until=self.now + 10, dependencies_met=met, started=started))

    @rule(which=tokens, progress=st.none() | st.floats(-1, 2) | st.just(float("nan")), note=st.none() | st.just("n"), steps=steps)
    def report(self, which: str, progress: float | None, note: str | None, steps: list[StepRecord]) -> None:
        self.do(cm.Report(token=self.token(which), lease_until=self.now + 10, progress=progress, note=note, steps=tuple(steps)))

    @rule(which=tokens)
    def checkpoint(self, which: str) -> None:
        self.numbers += 1
        number = len(self.state.checkpoints) + 1
        self.do(cm.SaveCheckpoint(token=self.token(which), checkpoint=f"c_{self.numbers}", base=None, size_bytes=3, digest="d", number=number))

    @rule(which=tokens, steps=steps)
    def complete(self, which: str, steps: list[StepRecord]) -> None:
        self.do(cm.Complete(token=self.token(which), result=msgspec.Raw(b"42"), steps=tuple(steps)))

    @rule(which=tokens, error=errors, retryable=st.booleans(), jitter=jitters)
    def fail(self, which: str, error: TaskError, retryable: bool, jitter: float) -> None:
        self.do(cm.Fail(token=self.token(which), error=error, retryable=retryable, jitter=jitter))

    @rule(which=tokens, checkpoint=st.none() | st.just("c_1"))
    def continue_later(self, which: str, checkpoint: str | None) -> None:
        self.do(cm.ContinueLater(token=self.token(which), reason="context is used up", checkpoint=checkpoint))

    @rule(which=tokens, reason=st.sampled_from(["silent", "incarnation", "unregistered", "timeout"]), jitter=jitters)
    def lose(self, which: str, reason: str, jitter: float) -> None:
        self.do(cm.ExpireLease(token=self.token(which), reason=reason, most_losses=MOST_LOSSES, jitter=jitter))

    @rule(
        command=st.sampled_from(
            [
                cm.FailDependent(dependency="t_0"), cm.PassDeadline(), cm.Cancel(reason="no more"), cm.Pause(), cm.Pause(reason="wait"), cm.Resume(),
                cm.Resume(), cm.Reopen(), cm.SetPriority(priority=7), cm.SetPriority(priority=101), cm.Compact(),
                cm.Drop(),
            ]
        )
    )  # fmt: skip
    def control(self, command: cm.Command) -> None:
        self.do(command)

    @rule(
        which=tokens,
        action=st.sampled_from(["mail.send", "db.write"]),
        digest=st.sampled_from(["d1", "d2"]),
        expires=st.sampled_from([None, 10.0]),
        default=st.sampled_from(["approve", "reject"]),
        verdict=st.sampled_from([None, None, ApprovalStatus.APPROVED, ApprovalStatus.REJECTED]),
    )
    def ask(self, which: str, action: str, digest: str, expires: float | None, default: str, verdict: ApprovalStatus | None) -> None:
        self.numbers += 1
        self.do(
            cm.RequestApproval(
                token=self.token(which), approval=f"a_{self.numbers}", action=action, arguments=msgspec.Raw(b"{}"), arguments_digest=digest,
                context=msgspec.Raw(b"{}"), requested_by="e_1", expires_at=expires and self.now + expires, default_action=default, verdict=verdict,
                verdict_by="system:policy",
            )
        )  # fmt: skip

    @rule(
        at=st.integers(0, 5),
        status=st.sampled_from([ApprovalStatus.APPROVED, ApprovalStatus.MODIFIED, ApprovalStatus.REJECTED]),
        by=st.sampled_from(["user:anna", "user:bert"]),
    )
    def answer(self, at: int, status: ApprovalStatus, by: str) -> None:
        modified = msgspec.Raw(b'{"to": "x"}') if status is ApprovalStatus.MODIFIED else None
        self.do(cm.DecideApproval(approval=self.approval(at), status=status, by=by, modified_arguments=modified))

    @rule(at=st.integers(0, 5))
    def expire_question(self, at: int) -> None:
        self.do(cm.ExpireApproval(approval=self.approval(at)))

    @rule(which=tokens, at=st.integers(0, 5))
    def begin_effect(self, which: str, at: int) -> None:
        self.do(cm.BeginEffect(token=self.token(which), approval=self.approval(at)))

    @rule(which=tokens, at=st.integers(0, 5))
    def finish_effect(self, which: str, at: int) -> None:
        self.do(cm.FinishEffect(token=self.token(which), approval=self.approval(at), outcome=msgspec.Raw(b'"sent"')))

    @rule()
    def repeat(self) -> None:
        if self.last is not None:
            self.do(self.last)

    def token(self, which: str) -> int:
        state = self.state
        known = {"held": state.token, "older": self.tokens[max(0, len(self.tokens) - 2)], "zero": 0, "foreign": self.seq + 99}
        return known[which]

    def approval(self, at: int) -> str:
        known = self.state.approvals
        return known[at % len(known)].id if known else "a_none"

    def do(self, command: cm.Command) -> None:
        """Decide, check, write, apply, check."""
        before, frozen = self.state, msgspec.json.encode(self.state)
        first, again = _outcome(before, command, self.now), _outcome(before, command, self.now)
        assert first == again, "the same input, the same output"
        assert msgspec.json.encode(before) == frozen, "deciding changes nothing"
        self.last = command
        if isinstance(first, str):
            assert first in REFUSALS
            return
        if not first:
            return
        self.seq += 1 + self.seq % 3
        envelope = ev.Envelope(v=ev.SCHEMA_VERSION, at=self.now, by="test", cmd=f"x{self.seq}", events=tuple(first))
        body = encode_envelope(envelope)
        decoded = decode_envelope(body)
        assert decoded == envelope
        after = apply_envelope(before, TASK_ID, envelope, self.seq)
        assert after == apply_envelope(before, TASK_ID, decoded, self.seq)
        assert msgspec.json.encode(before) == frozen, "applying makes a new state"
        self.log.append((self.seq, body))
        self.state = after
        self.check_step(before, after, first)
        self.check_repeat(command)

    def check_step(self, before: TaskState | None, after: TaskState, events) -> None:
        names = [type(event).__name__ for event in events]
        if before is None:
            return
        if before.status is TaskStatus.COMPLETED:
            assert names in (["Compacted"], ["TaskDropped"]), f"after the end: {names}"
        if before.status is TaskStatus.FAILED:
            assert names in (["Reopened"], ["Compacted"], ["TaskDropped"]), f"after the end: {names}"
        assert not before.dropped, "nothing is written behind a task that was dropped"
        assert names.count("TaskCompleted") + names.count("TaskFailed") <= 1
        if "Assigned" in names:
            assert after.token == self.seq > before.token
            self.tokens.append(after.token)
            self.claims += 1
        else:
            assert after.token == before.token
            assert after.progress >= before.progress, "within a claim progress never falls"
        for name, result in before.steps.items():
            assert after.steps[name] == result, "a finished step stays as it was"
        assert after.checkpoints[: len(before.checkpoints)] == before.checkpoints
        assert [one.id for one in after.approvals][: len(before.approvals)] == [one.id for one in before.approvals]
        for old in before.approvals:
            new = after.approval(old.id)
            assert old.status is ApprovalStatus.PENDING or new.status is old.status, "the first answer counts"
            assert ["none", "begun", "finished"].index(new.effect) - ["none", "begun", "finished"].index(old.effect) in (0, 1)
        for event in events:
            if isinstance(event, ev.ApprovalDecided) and event.status is ApprovalStatus.EXPIRED:
                assert before.status is not TaskStatus.PAUSED, "questions of a paused task wait with it"
            if isinstance(event, ev.EffectBegun):
                asked = before.approval(event.approval)
                assert asked.is_granted
                assert before.is_held
                self.begun.append((asked.action, asked.arguments_digest))
        assert len(set(self.begun)) == len(self.begun), "begun at most once"

    def check_repeat(self, command: cm.Command) -> None:
        """The reply was lost and the caller asks again: nothing happens, and it is not refused."""
        again = _outcome(self.state, command, self.now)
        if isinstance(command, cm.Report):
            assert all(isinstance(event, ev.ProgressReported) for event in again)
        elif not isinstance(command, NOT_REPEATABLE):
            assert again == (), f"{command} again: {again}"

    @invariant()
    def holds(self) -> None:
        state = self.state
        if state is None:
            return
        waits = bool(state.pending_approvals)
        assert (state.status is TaskStatus.AWAITING_APPROVAL) == (waits and state.status is not TaskStatus.PAUSED)
        if state.is_terminal:
            assert state.lease_until is None
            assert not waits
            assert (state.error is None) == (state.status is TaskStatus.COMPLETED)
        elif state.executor is None:
            assert state.lease_until is None
            assert state.assigned_at is None
            assert state.status not in {TaskStatus.ASSIGNED, TaskStatus.EXECUTING}
        else:
            assert state.is_held
            assert state.lease_until is not None
        assert state.seq == self.seq
        assert state.claims == self.claims
        assert 0 <= state.progress <= 1
        assert state.is_terminal or state.attempts < state.retry.max_attempts
        assert state.is_terminal or state.losses < MOST_LOSSES

    def teardown(self) -> None:
        """The log alone gives the state; so does its part from the last compaction on."""
        if self.state is None:
            return
        assert _replayed(self.log) == self.state
        compacted = [at for at, (_, body) in enumerate(self.log) if b'"name":"Compacted"' in body]
        if compacted:
            assert _replayed(self.log[compacted[-1] :]) == self.state


def _outcome(state: TaskState | None, command: cm.Command, now: float):
    try:
        return tuple(decide(state, command, now))
    except ApplianceError as refused:
        return refused.code


def _replayed(log: list[tuple[int, bytes]]) -> TaskState | None:
    state = None
    for seq, body in log:
        state = apply_envelope(state, TASK_ID, decode_envelope(body), seq)
    return state


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)

"""Invariants that hold after any sequence of proposals: a state machine over the core without a database."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runstate.core.batch.requests import Answer, ProposeState
from runstate.core.policies import MARK_LATE
from runstate.core.rules.concurrency import HOLDING, HOLDING_TASK
from runstate.core.slots import occupied, remaining_slots
from runstate.core.states import State, late
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions, FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import FINAL_TYPES, RunKind, StateType
from runstate.errors import IdempotencyConflict, VersionConflict
from runstate.rows import FlowRun, TaskRun
from tests.core.factories import deployment, examples, flow_run, limit, task_run
from tests.core.store_in_memory import Memory, proposal
from tests.core.strategies import Anything, anything

Run = FlowRun | TaskRun
CLOSE = 1e-3


class Orchestration(RuleBasedStateMachine):
    """Some runs, limits and deployments, and random proposals to them."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.runs: list[Run] = []
        self.new: list[Run] = []
        self.most: dict[UUID, int] = {}
        """Most slots that may be held, by limit: its own number, or the slots held when it was lowered."""
        self.gone: set[UUID] = set()
        """Ids of released leases."""

    @initialize(slots=st.integers(1, 2), decay=st.sampled_from([0.05, 1]))
    def begin(self, slots: int, decay: float) -> None:
        """Create flow runs with and without a deployment, a subflow run, and task runs with tags."""
        limits = [limit(slots, name="deployment"), limit(1, name="tag:a"), limit(slots, name="tag:b")]
        limits.append(limit(1, name="tag:rate", slot_decay_per_second=decay))
        cancels = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW, grace_period_seconds=60)
        deployed = [deployment(limits[0]), deployment(limits[0], concurrency_options=cancels), deployment()]
        retrying = FlowRunPolicy(retries=1, retry_delay_seconds=5)
        flows = [flow_run(deployment_id=each.id) for each in deployed] + [flow_run(policy=retrying)]
        parent = task_run(flow_run_id=flows[0].id, tags=["a"])
        flows.append(flow_run(parent_task_run_id=parent.id, deployment_id=deployed[0].id, policy=retrying))
        tags = [["a"], ["a", "b"], ["rate"], ["b", "rate"], []]
        policy = TaskRunPolicy(retries=2, retry_delays_seconds=(1, 5), retry_jitter_factor=0.5)
        tasks = [task_run(tags=each, policy=policy, flow_run_id=flows[0].id) for each in tags]
        self.runs = [*flows, parent, *tasks, task_run(tags=["a", "b", "rate"])]
        self.new = [task_run(tags=["a", "b", "rate"]), flow_run(deployment_id=deployed[0].id)]
        self.memory.have(*limits, *deployed, *self.runs)
        self.most = {each.id: each.limit for each in limits}

    @rule(at=st.integers(0, 100), said=anything, draw=st.floats(0, 1))
    def propose(self, at: int, said: Anything, draw: float) -> None:
        """Propose any state to any run."""
        self.memory.draw = draw
        self.ask(said(self.runs[at % len(self.runs)], self.memory.now))

    @rule(at=st.integers(0, 100))
    def find_late(self, at: int) -> None:
        """Mark a run as late, as the service does."""
        run = self.runs[at % len(self.runs)]
        if isinstance(run, FlowRun):
            self.ask(proposal(run, late(self.memory.now), policy=MARK_LATE))

    @rule(kind=st.sampled_from(StateType))
    def create(self, kind: StateType) -> None:
        """Create a run."""
        if self.new:
            run = self.new.pop()
            self.memory.create(run, State(type=kind))
            self.runs.append(run)
            assert self.memory.history(run)[0].version == 1
            assert self.memory.held(run) == []

    @rule(seconds=st.integers(-3, 30))
    def wait(self, seconds: int) -> None:
        """Move the clock, forwards or backwards."""
        self.memory.wait(seconds)

    @rule(at=st.integers(0, 3), slots=st.integers(0, 3))
    def change_limit(self, at: int, slots: int) -> None:
        """Change the number of slots of a limit."""
        limits = self.memory.unit.limits
        each = limits[sorted(limits)[at]]
        limits[each.id] = each.replace(limit=slots)
        self.most[each.id] = max(slots, self.slots_of(each.id))

    @rule()
    def expire(self) -> None:
        """Release expired leases, as the service does."""
        now, leases = self.memory.now, list(self.memory.unit.leases.values())
        for each in leases:
            if each.expires is not None and each.expires <= now:
                self.memory.unit.release(self.memory.unit.leases[each.id], now)

    def slots_of(self, limit_id: UUID) -> int:
        """Return the number of held slots of a limit."""
        return sum(each.slots for each in self.memory.unit.leases.values() if each.limit_id == limit_id)

    def ask(self, request: ProposeState) -> None:
        """Propose, and check the answer."""
        before, entered = self.memory.snapshot(), len(self.memory.unit.transitions)
        outcome = self.memory.decide_request(request)
        written = self.memory.unit.transitions[entered:]
        self.gone |= before["leases"].keys() - self.memory.unit.leases.keys()
        if isinstance(outcome, VersionConflict | IdempotencyConflict):
            assert self.memory.snapshot() == before
            return
        assert isinstance(outcome, Answer)
        self.look(request, outcome, before, [each.run.id for each in written])

    def look(self, request: ProposeState, said: Answer, before: dict[str, Any], written: list[UUID]) -> None:
        """Check that an answer agrees with what was written."""
        silent = said.status in {OrchestrationStatus.WAIT, OrchestrationStatus.ABORT}
        if silent and not request.dry_run and not said.replayed:
            self.look_at_answer(said, before)
            return
        if request.dry_run or said.replayed:
            assert self.memory.snapshot() == before
            return
        if said.status is OrchestrationStatus.ACCEPT:
            assert written
        if request.force:
            assert before["leases"].keys() >= self.memory.unit.leases.keys()
        parent = getattr(self.memory.unit.runs[request.run_id], "parent_task_run_id", None)
        assert written in ([], [request.run_id], [request.run_id, parent])
        assert bool(parent) == (len(written) == 2) or not written
        current = self.memory.unit.states.get(request.run_id)
        assert said.state_id == (current.id if current else None)
        assert (said.status is OrchestrationStatus.ACCEPT) == (said.rule is None)
        assert (said.reason is None) == (said.rule is None)

    def look_at_answer(self, said: Answer, before: dict[str, Any]) -> None:
        """Check that a refusal is kept on its run, and changes nothing else."""
        after = self.memory.snapshot()
        answer = after["runs"][said.run_id]["last_answer"]
        assert (answer.status, answer.rule, answer.reason) == (said.status, said.rule, said.reason)
        assert (before["runs"][said.run_id] | {"last_answer": answer}) == after["runs"][said.run_id]
        changed = {name for name in after if after[name] != before[name]}
        assert changed <= {"runs", "changed_runs", "waiters", "gone_waiters", "heard"}

    @invariant()
    def waiters_are_told_so(self) -> None:
        """Check that a run waits for the limits of its last answer."""
        waiting = set(self.memory.unit.waiters)
        assert not waiting & self.memory.unit.gone_waiters
        answers = {run.id: run.last_answer for run in map(self.memory.run, self.runs) if run.last_answer}
        assert waiting == {(run_id, each) for run_id, answer in answers.items() for each in answer.limit_ids}

    @invariant()
    def columns_agree(self) -> None:
        """Check that a run's columns agree with its history."""
        for each in self.runs:
            run, history = self.memory.run(each), self.memory.history(each)
            assert [state.version for state in history] == list(range(1, len(history) + 1))
            assert run.version == len(history)
            stamps = [state.timestamp for state in history if state.timestamp]
            assert stamps == sorted(stamps)
            assert run.total_run_time_seconds >= 0
            assert run.run_count >= 0
            if history:
                now = history[-1]
                current = (run.state_id, run.state_type, run.state_name, run.state_timestamp)
                assert current == (now.id, now.type, now.name, now.timestamp)
                assert (run.end_time is not None) == (now.type in FINAL_TYPES)
                assert run.next_scheduled_start_time == (now.details.scheduled_time if now.is_scheduled else None)
                assert run.expected_start_time is not None
                assert run.start_time is not None or not any(state.is_running for state in history)

    @invariant()
    def counts_are_of_running(self) -> None:
        """Check that a run's counter is at most the number of its RUNNING states."""
        for each in self.runs:
            ran = sum(state.is_running for state in self.memory.history(each))
            assert self.memory.run(each).run_count <= ran

    @invariant()
    def limits_are_kept(self) -> None:
        """Check that held slots do not exceed the limit and agree with the leases."""
        now = self.memory.now
        for each in self.memory.unit.limits.values():
            leases = [it for it in self.memory.unit.leases.values() if it.limit_id == each.id]
            if each.slot_decay_per_second == 0:
                assert each.occupied == sum(it.slots for it in leases)
                self.most[each.id] = max(each.limit, min(self.most[each.id], each.occupied))
                assert each.occupied <= self.most[each.id]
            else:
                rest = sum(remaining_slots(each, it, now) for it in leases)
                latest = max((it.expires for it in leases if it.expires), default=now)
                assert occupied(each, now) <= rest + CLOSE
                assert each.drained is None or each.drained <= max(latest, now) + timedelta(seconds=CLOSE)

    @invariant()
    def leases_are_held_by_who_may(self) -> None:
        """Check that a run holds at most one slot of a limit, in states that hold slots; released leases are gone."""
        leases = list(self.memory.unit.leases.values())
        assert not self.gone & {each.id for each in leases}
        held = [(each.run_id, each.limit_id) for each in leases if each.automatic]
        assert len(held) == len(set(held))
        for run_id, _ in held:
            assert run_id is not None
            run = self.memory.unit.runs[run_id]
            assert run.state_type in (HOLDING_TASK if isinstance(run, TaskRun) else HOLDING)

    @invariant()
    def mirrors_follow(self) -> None:
        """Check that a subflow run's task run enters each state of the subflow run."""
        for each in self.runs:
            if isinstance(each, FlowRun) and each.parent_task_run_id:
                parent = self.memory.unit.runs[each.parent_task_run_id]
                mirrored = [state.name for state in self.memory.history(parent) if state.details.child_flow_run_id]
                assert mirrored == [state.name for state in self.memory.history(each)]

    @invariant()
    def answers_are_kept_once(self) -> None:
        """Check that each idempotency key of a run has one answer."""
        kept = [(each.run_id, each.key) for each in self.memory.unit.new_answers]
        assert len(kept) == len(set(kept))


TestOrchestration = Orchestration.TestCase
TestOrchestration.settings = examples(60, stateful_step_count=40)


def test_both_kinds_of_runs_take_part() -> None:
    machine = Orchestration()
    machine.begin(1, 1)

    assert {proposal(run, State(type=StateType.RUNNING)).kind for run in machine.runs} == set(RunKind)

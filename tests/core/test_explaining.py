"""Decisions that are kept: on the states that they wrote, and on runs whose proposal wrote none."""

import pytest

from runstate.core.policies import MARK_LATE
from runstate.core.states import (
    State,
    cancelling,
    completed,
    crashed,
    failed,
    late,
    paused,
    pending,
    running,
    scheduled,
)
from runstate.documents.decisions import LastAnswer, OrchestrationStatus, ProposedType, StateDecision
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions, TaskRunPolicy
from runstate.documents.states import RunKind, StateType
from runstate.rows import FlowRun, TaskRun
from tests.core.factories import NOW, deployment, flow_run, in_seconds, limit, task_run
from tests.core.store_in_memory import Memory

S = StateType
RUNNING = ProposedType(type=S.RUNNING, name="Running")
WAIT, ABORT, REJECT = OrchestrationStatus.WAIT, OrchestrationStatus.ABORT, OrchestrationStatus.REJECT


@pytest.fixture
def memory() -> Memory:
    """Return an empty store in memory."""
    return Memory()


def decisions(memory: Memory, run: FlowRun | TaskRun) -> list[StateDecision | None]:
    """Return the decisions that wrote the states of a run."""
    return [state.decision for state in memory.history(run)]


def last_answer(memory: Memory, run: FlowRun | TaskRun) -> LastAnswer | None:
    """Return the last answer that a run keeps."""
    answer: LastAnswer | None = memory.run(run).last_answer
    return answer


def waits_for(memory: Memory, run: FlowRun | TaskRun) -> set[str]:
    """Return the names of the limits that a run waits for."""
    return {memory.unit.limits[limit_id].name for run_id, limit_id in memory.unit.waiters if run_id == run.id}


def test_an_acceptance_without_changes_is_not_stored(memory: Memory) -> None:
    run = flow_run()
    memory.create(run, scheduled(NOW))
    memory.propose(run, running())
    memory.propose(run, completed())

    assert decisions(memory, run) == [None, None, None]


def test_an_acceptance_names_the_rules_that_changed_the_state(memory: Memory) -> None:
    flow, run = flow_run(), task_run(policy=TaskRunPolicy(retries=1))
    memory.have(flow, run.replace(flow_run_id=flow.id))
    memory.propose(flow, running())
    for state in (running(), failed(), running(name="Mine")):
        memory.propose(run, state)

    first, _, again = decisions(memory, run)
    assert (first, memory.run(run).flow_run_run_count) == (None, 1)
    assert again == StateDecision(proposed=ProposedType(type=S.RUNNING, name="Mine"), amended_by=("name_further_runs",))


def test_a_state_in_place_of_the_proposed_one_names_both_and_the_rule(memory: Memory) -> None:
    run = task_run(policy=TaskRunPolicy(retries=1))
    memory.have(run)
    memory.propose(run, running())
    said = memory.propose(run, failed(name="Boom"))

    assert memory.state(run).name == "AwaitingRetry"
    assert memory.state(run).decision == StateDecision(
        proposed=ProposedType(type=S.FAILED, name="Boom"),
        status=REJECT,
        rule="retry_failed_task_run",
        reason="The run will be retried.",
    )
    assert said.written
    assert said.written.decision_record == memory.state(run).decision


def test_a_state_without_a_proposal_names_what_wrote_it(memory: Memory) -> None:
    parent, run = task_run(), flow_run()
    memory.have(parent, run.replace(parent_task_run_id=parent.id))
    memory.propose(run, scheduled(NOW))
    memory.propose(run, late(NOW), policy=MARK_LATE, actor="service:late")
    memory.propose(run, running(), force=True)

    rules = [each.decision.rule if each.decision else None for each in memory.history(run)]
    assert rules == [None, "service:late", "force"]
    assert {each.rule for each in decisions(memory, parent) if each} == {"follow_subflow_run", "service:late"}
    assert all(each is None or each.proposed is None for each in decisions(memory, run))


@pytest.mark.parametrize(
    ("initial", "proposed", "status", "rule"),
    [
        (scheduled(NOW, in_seconds(9)), running(), WAIT, "wait_for_scheduled_time"),
        (completed(), crashed(), ABORT, "final_states_are_terminal"),
        (cancelling(), running(), REJECT, "finish_cancelling"),
    ],
)
def test_a_proposal_that_writes_nothing_is_kept_on_the_run_until_its_next_state(
    memory: Memory, initial: State, proposed: State, status: OrchestrationStatus, rule: str
) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, initial, force=True)
    said = memory.propose(run, proposed)

    assert last_answer(memory, run) == LastAnswer(
        at=NOW,
        proposed=ProposedType(type=proposed.type, name=proposed.name),
        status=status,
        rule=rule,
        reason=said.reason or "",
        retry_after_seconds=said.retry_after_seconds,
    )
    memory.propose(run, State(type=S.CANCELLED), force=True)
    assert last_answer(memory, run) is None


def test_a_dry_run_is_not_kept(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, paused(NOW), dry_run=True)

    assert last_answer(memory, run) is None


def test_equal_answers_are_kept_once_a_second_and_other_answers_at_once(memory: Memory) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a", occupied=1)
    memory.have(run, limited)
    memory.propose(run, scheduled(NOW, in_seconds(10)))
    kept = set()
    for _ in range(30):
        memory.propose(run, running())
        kept.add(memory.run(run).last_answer.at)
        memory.wait(0.1)

    assert sorted(kept) == [NOW, in_seconds(1), in_seconds(2)]
    memory.unit.limits[limited.id] = limited.replace(limit=0)
    assert memory.propose(run, running()).status is ABORT
    answer = last_answer(memory, run)
    assert answer
    assert (answer.status, answer.at) == (ABORT, in_seconds(3))


def test_a_run_waits_for_the_full_limits_only_and_counts_its_attempts(memory: Memory) -> None:
    run, a, b = task_run(tags=["a", "b"]), limit(1, name="tag:a", occupied=1), limit(1, name="tag:b", occupied=1)
    memory.have(run, a, b)
    attempts = []
    for _ in range(3):
        memory.propose(run, running())
        attempts.append(memory.run(run).last_answer.attempts)
        memory.wait(1)
    assert attempts == [1, 2, 3]
    assert waits_for(memory, run) == {"tag:a", "tag:b"}

    memory.unit.limits[b.id] = b.replace(occupied=0)
    memory.propose(run, running())
    assert waits_for(memory, run) == {"tag:a"}
    assert memory.unit.gone_waiters == {(run.id, b.id)}

    memory.unit.limits[a.id] = a.replace(occupied=0)
    memory.propose(run, running())
    assert waits_for(memory, run) == set()
    assert memory.unit.gone_waiters == {(run.id, a.id), (run.id, b.id)}


def test_a_claimed_run_that_is_rescheduled_waits_for_the_limit_of_its_deployment(memory: Memory) -> None:
    limited = limit(1, name="deployment:1", occupied=1)
    deployed = deployment(limited)
    run = flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run)
    memory.propose(run, scheduled(NOW), force=True)
    for attempt in (1, 2):
        memory.propose(run, pending())
        answer = last_answer(memory, run)
        assert answer
        assert (answer.status, answer.attempts, answer.limit_ids) == (REJECT, attempt, (limited.id,))
        assert waits_for(memory, run) == {"deployment:1"}
        memory.wait(30)

    memory.unit.limits[limited.id] = limited.replace(occupied=0)
    memory.propose(run, pending())
    assert (last_answer(memory, run), waits_for(memory, run)) == (None, set())


def test_a_claimed_run_that_is_cancelled_waits_for_nothing(memory: Memory) -> None:
    limited = limit(1, name="deployment:1", occupied=1)
    options = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW)
    deployed = deployment(limited, concurrency_options=options)
    run = flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run)
    memory.propose(run, scheduled(NOW), force=True)
    memory.propose(run, pending())

    assert (memory.state(run).type, last_answer(memory, run), waits_for(memory, run)) == (S.CANCELLED, None, set())


def test_a_request_is_a_sign_of_life_of_a_monitored_run_and_of_its_flow_run(memory: Memory) -> None:
    flow, other = flow_run(heartbeat_seconds=5.0), flow_run()
    run, silent = task_run(flow_run_id=flow.id, heartbeat_seconds=1.0), task_run(flow_run_id=flow.id)
    memory.have(flow, other, run, silent)
    memory.propose(flow, running())
    memory.propose(other, running())
    assert memory.unit.heard == {flow.id: 1}

    memory.unit.heard.clear()
    memory.propose(silent, running(), dry_run=True)
    memory.propose(silent, running(), actor="service:late")
    assert memory.unit.heard == {}
    memory.propose(run, running())
    assert memory.unit.heard == {flow.id: 1, run.id: 1}

    memory.unit.heard.clear()
    memory.propose(run, completed())
    memory.propose(flow, paused(NOW))
    assert memory.unit.heard == {flow.id: 1}
    memory.unit.heard.clear()
    memory.propose(silent, running(), force=True)
    assert memory.unit.heard == {}


def test_a_waiter_names_its_run_and_its_limit(memory: Memory) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a", occupied=1)
    memory.have(run, limited)
    memory.propose(run, running())

    (waiter,) = memory.unit.waiters.values()
    assert (waiter.run_id, waiter.limit_id, waiter.run_kind) == (run.id, limited.id, RunKind.TASK_RUN)
    assert (waiter.created, waiter.updated) == (NOW, NOW)

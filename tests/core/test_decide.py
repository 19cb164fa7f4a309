"""Decisions on single requests: the answer, and the rows to write."""

from typing import Any
from uuid import UUID

import pytest

from runstate.core.batch.decide import policy_for
from runstate.core.batch.requests import Created, CreateRun
from runstate.core.policies import BACKGROUND_TASK, CORE_FLOW, CORE_TASK, MARK_LATE, MINIMAL_FLOW, MINIMAL_TASK
from runstate.core.proposal import RuleOutcome, RuleVerdict
from runstate.core.states import (
    State,
    cancelling,
    failed,
    late,
    paused,
    pending,
    running,
    scheduled,
)
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import FlowRunPolicy
from runstate.documents.states import StateType
from runstate.errors import IdempotencyConflict, NotFound, VersionConflict
from tests.core.factories import NOW, details, flow_run, in_seconds, limit, task_run
from tests.core.store_in_memory import Memory, proposal

ACCEPT, REJECT = OrchestrationStatus.ACCEPT, OrchestrationStatus.REJECT
WAIT, ABORT = OrchestrationStatus.WAIT, OrchestrationStatus.ABORT


@pytest.fixture
def memory() -> Memory:
    """Return an empty store."""
    return Memory()


def test_an_accepted_state_is_entered(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    said = memory.propose(run, running(message="m", data={"a": 1}), actor="me", request_id="r")

    assert (said.status, said.run_id, said.state_id) == (ACCEPT, run.id, memory.state(run).id)
    assert (said.reason, said.rule, said.retry_after_seconds, said.replayed) == (None, None, None, False)
    assert (memory.state(run).version, memory.state(run).timestamp) == (1, NOW)
    assert said.written
    assert (said.written.id, said.written.message, said.written.data) == (said.state_id, "m", {"a": 1})
    assert (said.written.actor, said.written.request_id, said.written.created) == ("me", "r", NOW)


def test_the_state_left_and_the_state_entered_are_logged(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, pending())
    memory.propose(run, running(), actor="me")

    first, second = memory.unit.transitions
    assert (first.left, first.state, second.left) == (None, second.left, memory.history(run)[0])
    assert (second.state, second.actor, second.run.version) == (memory.state(run), "me", 2)
    assert memory.unit.changed_runs == {run.id}


@pytest.mark.parametrize(
    ("state", "status"),
    [(running(), WAIT), (paused(NOW), REJECT), (State(type=StateType.SCHEDULED, name="Late"), REJECT)],
)
def test_a_refused_state_changes_only_the_last_answer(
    memory: Memory, state: State, status: OrchestrationStatus
) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, late(NOW, in_seconds(9)), force=True)
    before = memory.snapshot()
    said = memory.propose(run, state)

    assert (said.status, said.state_id, said.written) == (status, memory.state(run).id, None)
    assert said.reason
    assert said.rule == said.considered[-1].rule
    memory.unit.runs[run.id] = memory.run(run).replace(last_answer=None)
    assert memory.snapshot() == before


def test_a_run_without_a_state_has_none_after_a_refusal(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)

    assert memory.propose(run, paused(NOW)).state_id is None


def test_the_answer_names_every_evaluated_rule(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, cancelling(), force=True)
    said = memory.propose(run, running())

    assert said.rule == "finish_cancelling"
    assert said.considered == (
        RuleOutcome("carry_lease", RuleVerdict.PASS),
        RuleOutcome("refuse_repeated_transition", RuleVerdict.PASS),
        RuleOutcome(
            "finish_cancelling", RuleVerdict.REJECT, "The run is being cancelled: it can only become CANCELLED."
        ),
    )


def test_an_unknown_run_is_not_found(memory: Memory) -> None:
    missing = memory.decide_request(proposal(flow_run(), running()))

    assert isinstance(missing, NotFound)
    assert missing.missing_id


def test_the_id_of_a_flow_run_is_not_found_as_a_task_run(memory: Memory) -> None:
    flow, task = flow_run(), task_run()
    memory.have(flow, task)

    assert isinstance(memory.decide_request(proposal(task_run(id=flow.id), running())), NotFound)
    assert isinstance(memory.decide_request(proposal(flow_run(id=task.id), running())), NotFound)


def test_a_proposal_with_the_expected_version_is_accepted(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)

    assert memory.propose(run, pending(), expected_version=0).status is ACCEPT
    assert memory.propose(run, running(), expected_version=1).status is ACCEPT


@pytest.mark.parametrize("expected", [0, 2, -1])
def test_a_proposal_with_another_expected_version_gets_the_current_version(memory: Memory, expected: int) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, pending())
    before = memory.snapshot()
    conflict = memory.decide_request(proposal(run, running(), expected_version=expected))

    assert isinstance(conflict, VersionConflict)
    assert conflict.current_version == 1
    assert memory.snapshot() == before


def test_a_repeated_proposal_with_the_same_key_gets_the_stored_answer(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    first = memory.propose(run, running(message="m"), idempotency_key="k")
    memory.propose(run, failed())
    before = memory.snapshot()
    again = memory.propose(run, running(message="m"), idempotency_key="k", expected_version=0)

    assert again.replayed
    assert (again.status, again.state_id, again.considered) == (first.status, first.state_id, first.considered)
    assert memory.snapshot() == before


def test_a_rejection_that_wrote_something_is_stored_with_its_key(memory: Memory) -> None:
    run = flow_run(policy=FlowRunPolicy(retries=5))
    memory.have(run)
    memory.propose(run, running())
    first = memory.propose(run, failed(), idempotency_key="k")
    again = memory.propose(run, failed(), idempotency_key="k")

    assert (first.status, again.status, again.reason, again.rule) == (REJECT, REJECT, first.reason, first.rule)
    assert (again.state_id, again.replayed) == (first.state_id, True)
    assert len(memory.history(run)) == 2


def test_an_answer_that_wrote_nothing_is_decided_again(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, scheduled(NOW, in_seconds(5)))

    assert memory.propose(run, running(), idempotency_key="k").status is WAIT
    memory.wait(5)
    assert memory.propose(run, running(), idempotency_key="k").status is ACCEPT


@pytest.mark.parametrize(
    "other", [{"state": pending()}, {"state": running(message="m")}, {"state": running(), "force": True}]
)
def test_another_proposal_with_the_same_key_is_refused(memory: Memory, other: dict[str, Any]) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, running(), idempotency_key="k")

    assert isinstance(memory.decide_request(proposal(run, idempotency_key="k", **other)), IdempotencyConflict)


def test_keys_belong_to_one_run(memory: Memory) -> None:
    one, two = flow_run(), flow_run()
    memory.have(one, two)
    memory.propose(one, running(), idempotency_key="k")

    assert not memory.propose(two, pending(), idempotency_key="k").replayed


def test_a_dry_run_returns_what_would_be_written_and_writes_nothing(memory: Memory) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a")
    memory.have(run, limited)
    before = memory.snapshot()
    said = memory.propose(run, running(message="m"), dry_run=True, idempotency_key="k")

    assert (said.status, said.state_id, said.written) == (ACCEPT, None, None)
    assert said.proposed
    assert (said.proposed.message, said.proposed.timestamp) == ("m", NOW)
    assert memory.snapshot() == before


def test_a_dry_run_of_a_refused_proposal_returns_no_state(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, scheduled(NOW, in_seconds(5)))
    said = memory.propose(run, running(), dry_run=True)

    assert (said.status, said.proposed, said.state_id) == (WAIT, None, memory.state(run).id)


def test_a_scheduled_state_without_a_time_is_due_now(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, State(type=StateType.SCHEDULED))

    assert memory.state(run).details.scheduled_time == NOW


def test_rules_see_no_time_before_the_runs_last_state(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.wait(9)
    memory.propose(run, scheduled(NOW, in_seconds(9)))
    memory.wait(-9)

    assert memory.propose(run, running()).status is ACCEPT
    assert memory.state(run).timestamp == in_seconds(9)


FLOW, TASK, DEFERRED = flow_run(), task_run(), details(deferred=True)


@pytest.mark.parametrize(
    ("request_", "policy"),
    [
        (proposal(FLOW, running()), CORE_FLOW),
        (proposal(FLOW, running(), force=True), MINIMAL_FLOW),
        (proposal(FLOW, late(NOW), policy=MARK_LATE), MARK_LATE),
        (proposal(TASK, running()), CORE_TASK),
        (proposal(TASK, running(details=DEFERRED)), BACKGROUND_TASK),
        (proposal(TASK, running(), force=True), MINIMAL_TASK),
        (proposal(TASK, running(details=DEFERRED), force=True), MINIMAL_TASK),
    ],
)
def test_a_policy_is_chosen_by_the_kind_of_run_and_by_force(request_: Any, policy: Any) -> None:
    run = FLOW if request_.run_id == FLOW.id else TASK

    assert policy_for(request_, run) is policy


def test_a_new_run_enters_its_first_state_without_rules(memory: Memory) -> None:
    run = flow_run()
    made = memory.create(run, paused(NOW))

    assert (made.created, made.run_id) == (True, run.id)
    assert (memory.state(run).type, memory.run(run).version) == (StateType.PAUSED, 1)


def test_an_existing_run_is_returned_by_a_creation(memory: Memory) -> None:
    there, new = flow_run(), flow_run()
    memory.have(there)
    memory.unit.existing[new.id] = there.id
    said = memory.decide_request(CreateRun(run=new, state=running()))

    assert isinstance(said, Created)
    assert (said.created, said.run_id) == (False, there.id)
    assert memory.history(there) == []


def test_a_run_is_created_once_by_repeated_requests(memory: Memory) -> None:
    run = flow_run()
    memory.create(run, pending())
    again = memory.decide_request(CreateRun(run=run, state=pending()))

    assert isinstance(again, Created)
    assert (again.created, again.run_id, len(memory.history(run))) == (False, run.id, 1)


def test_a_run_that_is_created_later_is_not_found(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.unit.created.add(run.id)

    assert isinstance(memory.decide_request(proposal(run, running())), NotFound)


@pytest.mark.parametrize(
    "run",
    [flow_run(parent_task_run_id=UUID(int=6)), flow_run(deployment_id=UUID(int=6)), task_run(flow_run_id=UUID(int=6))],
)
def test_a_run_with_unknown_references_is_not_created(memory: Memory, run: Any) -> None:
    memory.unit.dangling[run.id] = UUID(int=6)
    said = memory.decide_request(CreateRun(run=run, state=pending()))

    assert isinstance(said, NotFound)
    assert said.missing_id == str(UUID(int=6))


def test_the_task_run_of_a_subflow_run_enters_the_same_states(memory: Memory) -> None:
    flow, parent = flow_run(), task_run()
    subflow = flow_run(parent_task_run_id=parent.id)
    memory.have(flow, parent, subflow)
    memory.propose(subflow, running(message="m", data={"a": 1}), actor="me")

    mirror = memory.state(parent)
    assert (mirror.type, mirror.message, mirror.data, mirror.version) == (StateType.RUNNING, "m", {"a": 1}, 1)
    assert mirror.id != memory.state(subflow).id
    assert mirror.details.child_flow_run_id == subflow.id
    assert (mirror.details.task_run_id, memory.run(parent).run_count) == (parent.id, 1)
    assert memory.state(subflow).details.task_run_id == parent.id
    assert [each.actor for each in memory.unit.transitions] == ["me", "me"]


def test_the_input_of_a_resumed_subflow_run_is_stored_for_that_run_only(memory: Memory) -> None:
    parent = task_run()
    subflow = flow_run(parent_task_run_id=parent.id)
    memory.have(parent, subflow)
    memory.propose(subflow, running())
    memory.propose(subflow, paused(NOW))
    memory.propose(subflow, running(), expected_version=2, run_input_to_store=("response", {"a": 1}))

    assert [(each.flow_run_id, each.value) for each in memory.unit.new_inputs] == [(subflow.id, {"a": 1})]
    assert [state.name for state in memory.history(parent)] == ["Running", "Paused", "Running"]


def test_the_task_run_of_a_subflow_run_enters_the_replacement_state(memory: Memory) -> None:
    parent = task_run()
    subflow = flow_run(parent_task_run_id=parent.id, policy=FlowRunPolicy(retries=1))
    memory.have(parent, subflow)
    memory.propose(subflow, running(), idempotency_key="k")
    memory.propose(subflow, failed(), idempotency_key="l")

    assert [state.name for state in memory.history(parent)] == ["Running", "AwaitingRetry"]
    assert memory.unit.answers.keys() == {(subflow.id, "k"), (subflow.id, "l")}


def test_the_task_run_of_a_subflow_run_stays_if_the_proposal_is_refused(memory: Memory) -> None:
    parent = task_run()
    subflow = flow_run(parent_task_run_id=parent.id)
    memory.have(parent, subflow)
    memory.propose(subflow, paused(NOW))
    memory.propose(subflow, running(), dry_run=True)

    assert memory.history(parent) == []


def test_columns_of_a_pause_are_written_even_if_the_run_stays_paused(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, running())
    memory.propose(run, paused(NOW, pause_key="here"))
    said = memory.propose(run, cancelling())

    assert (said.status, said.written, memory.state(run).type) == (REJECT, None, StateType.PAUSED)
    assert memory.run(run).policy == FlowRunPolicy(resuming=True, pause_keys=("here",))


def test_what_the_server_resumes_is_not_counted_as_a_further_run(memory: Memory) -> None:
    run = flow_run()
    memory.have(run)
    memory.propose(run, running())
    memory.propose(run, paused(NOW, pause_key="here"))
    memory.propose(run, running(), quirks=False)

    assert (memory.run(run).run_count, memory.run(run).policy) == (1, FlowRunPolicy(pause_keys=("here",)))


def test_a_fingerprint_is_the_same_only_for_equal_proposals() -> None:
    run = flow_run()
    one = proposal(run, running(data={"b": 1, "a": 2}), actor="me", request_id="1")
    same = proposal(run, running(data={"a": 2, "b": 1}), actor="you", request_id="2", expected_version=3)

    assert one.fingerprint == same.fingerprint
    for other in (running(), running(data={"a": 2}), running(data=one.state.data, details=details(cache_key="k"))):
        assert proposal(run, other).fingerprint != one.fingerprint

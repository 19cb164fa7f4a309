"""Rules and bookkeeping of claims."""

from uuid import UUID

import pytest

from runstate.core import states
from runstate.core.bookkeeping import enter
from runstate.core.proposal import Abort
from runstate.core.rules.claims import act_under_live_claim
from runstate.core.states import State
from runstate.documents.policies import FlowRunPolicy
from tests.core.factories import NOW, asked, flow_run, task_run

CLAIM, OTHER = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize("claim_id", [None, CLAIM])
def test_a_worker_acts_under_the_live_claim_and_clients_without_one(claim_id: UUID | None) -> None:
    run = flow_run(claim_id=CLAIM)

    assert asked(act_under_live_claim, run, states.pending(), states.running(), claim_id=claim_id) is None


@pytest.mark.parametrize("live", [None, OTHER])
def test_a_worker_whose_claim_has_ended_is_refused(live: UUID | None) -> None:
    run = flow_run(claim_id=live)

    assert isinstance(asked(act_under_live_claim, run, states.pending(), states.running(), claim_id=CLAIM), Abort)


def test_no_worker_claims_task_runs() -> None:
    assert isinstance(asked(act_under_live_claim, task_run(), None, states.running(), claim_id=CLAIM), Abort)


IN_PROCESS = FlowRunPolicy(retry_type="in_process")
RESCHEDULED = FlowRunPolicy(retry_type="reschedule")


@pytest.mark.parametrize(
    ("state", "policy", "stays"),
    [
        (states.infrastructure_pending(), RESCHEDULED, True),
        (states.running(), RESCHEDULED, True),
        (states.cancelling(), RESCHEDULED, True),
        (states.paused(NOW), RESCHEDULED, True),
        (states.suspended(NOW), RESCHEDULED, False),
        (states.awaiting_retry(NOW), IN_PROCESS, True),
        (states.awaiting_retry(NOW), RESCHEDULED, False),
        (states.scheduled(NOW), IN_PROCESS, False),
        (states.completed(), IN_PROCESS, False),
        (states.crashed(), IN_PROCESS, False),
    ],
)
def test_a_claim_ends_when_the_run_leaves_the_process_of_its_worker(
    state: State, policy: FlowRunPolicy, *, stays: bool
) -> None:
    run, _ = enter(flow_run(claim_id=CLAIM, policy=policy), states.running(), state)

    assert run.claim_id == (CLAIM if stays else None)


def test_expired_claims_are_forgotten_once_a_run_runs() -> None:
    waiting, _ = enter(flow_run(expired_claims=2), states.pending(), states.scheduled(NOW))
    running, _ = enter(flow_run(expired_claims=2), states.pending(), states.running())

    assert (waiting.expired_claims, running.expired_claims) == (2, 0)

"""Retries."""

from datetime import timedelta

from runstate.core.proposal import ANY, Amend, Proposal, Reject, rule
from runstate.core.states import awaiting_retry
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun

RUNNING = frozenset({StateType.RUNNING})
FAILED = frozenset({StateType.FAILED})


@rule(leaving=RUNNING, entering=FAILED)
def retry_failed_flow_run(proposal: Proposal[FlowRun]) -> Reject | Amend:
    """A flow run that fails and has retries left becomes AwaitingRetry, and its process retries it."""
    policy = proposal.run.policy
    # The run count includes the first run: n retries allow n + 1 runs.
    if policy.retries is None or proposal.run.run_count > policy.retries:
        return Amend(run={"policy": policy.model_copy(update={"retry_type": None})})
    # The code runs again from its start, and can pause at the same places.
    noted = policy.model_copy(update={"resuming": False, "pause_keys": (), "retry_type": "in_process"})
    return _retry(proposal, policy.retry_delay_seconds or 0, run={"policy": noted})


@rule(leaving=RUNNING, entering=FAILED)
def retry_failed_task_run(proposal: Proposal[TaskRun]) -> Reject | None:
    """A task run that fails and has retries left becomes AwaitingRetry, unless the state is not retriable."""
    policy = proposal.run.policy
    if proposal.proposed.details.retriable is False or policy.retries is None:
        return None
    return None if proposal.run.run_count > policy.retries else _retry(proposal, _delay(proposal))


@rule(leaving=ANY, entering=RUNNING)
def name_further_runs(proposal: Proposal[TaskRun]) -> Amend | None:
    """A task run that runs again is named Retrying after AwaitingRetry, and Rerunning otherwise."""
    if proposal.run.run_count == 0:
        return None
    name = "Retrying" if proposal.initial_name == "AwaitingRetry" else "Rerunning"
    return Amend(state=proposal.proposed.fresh_copy(name=name))


@rule(leaving=ANY, entering=RUNNING)
def note_attempt_of_flow_run(proposal: Proposal[TaskRun]) -> Amend | None:
    """A task run that starts records the run count of its flow run."""
    return Amend(run={"flow_run_run_count": proposal.flow_run.run_count}) if proposal.flow_run else None


def _retry(
    proposal: Proposal[FlowRun] | Proposal[TaskRun], delay: float, run: dict[str, object] | None = None
) -> Reject:
    # The message and the data of the failure are kept: people want to see why the run is retried.
    failure = proposal.proposed
    when = proposal.now + timedelta(seconds=delay)
    again = awaiting_retry(proposal.now, when, message=failure.message, data=failure.data)
    return Reject(reason="The run will be retried.", instead=again, run=run or {})


def _delay(proposal: Proposal[TaskRun]) -> float:
    policy = proposal.run.policy
    if not policy.retry_delays_seconds:
        return 0
    attempt = max(proposal.run.run_count - 1, 0)
    # With fewer delays than retries, the last one counts for the rest.
    delay = policy.retry_delays_seconds[min(attempt, len(policy.retry_delays_seconds) - 1)]
    # Drawn evenly: that is simpler to explain than the clamped Poisson distribution of the reference.
    return max(0.0, delay * (1 + (policy.retry_jitter_factor or 0) * (2 * proposal.draw - 1)))

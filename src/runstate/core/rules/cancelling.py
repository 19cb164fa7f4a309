"""Cancellation."""

from runstate.core.proposal import Proposal, Reject, rule
from runstate.core.states import cancelled
from runstate.documents.states import StateType
from runstate.rows import FlowRun


@rule(leaving={StateType.CANCELLING}, entering=frozenset(StateType) - {StateType.CANCELLED})
def finish_cancelling(proposal: Proposal[FlowRun]) -> Reject:
    """A CANCELLING run can only become CANCELLED."""
    return Reject(reason="The run is being cancelled: it can only become CANCELLED.")


@rule(leaving={StateType.SCHEDULED, StateType.PAUSED}, entering={StateType.CANCELLING})
def cancel_at_once_without_infrastructure(proposal: Proposal[FlowRun]) -> Reject | None:
    """A run without infrastructure is CANCELLED at once: a SCHEDULED run that was not submitted, or a suspended run."""
    initial = proposal.initial
    if initial is None:
        return None
    # A paused run waits in its process; a suspended one has left it.
    has_process = not initial.details.pause_reschedule if initial.is_paused else _has_process(proposal)
    if has_process:
        return None
    return Reject(
        reason="The run is cancelled at once: it has no infrastructure to stop.",
        instead=cancelled(message=proposal.proposed.message),
    )


def _has_process(proposal: Proposal[FlowRun]) -> bool:
    """Whether a SCHEDULED run has a process to stop. Its `infrastructure_pid` may be that of an earlier process."""
    policy, name = proposal.run.policy, proposal.initial_name
    submitted = proposal.run.infrastructure_pid is not None and name != "Resuming"
    # The reference cancels a run that awaits a retry in its process at once, too.
    if proposal.quirks:
        return submitted
    # The process itself waits for the retry.
    if name == "AwaitingRetry" and policy.retry_type == "in_process":
        return True
    return submitted and not policy.resuming and policy.retry_type != "reschedule"

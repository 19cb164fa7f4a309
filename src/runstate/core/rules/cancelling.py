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
    waits = initial.is_scheduled and (proposal.run.infrastructure_pid is None or initial.name == "Resuming")
    suspended = initial.is_paused and initial.details.pause_reschedule
    if not (waits or suspended):
        return None
    return Reject(
        reason="The run is cancelled at once: it has no infrastructure to stop.",
        instead=cancelled(message=proposal.proposed.message),
    )

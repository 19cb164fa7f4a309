"""Cancellation."""

from runstate.core.proposal import Proposal, Reject, rule
from runstate.core.states import cancelled
from runstate.documents.states import StateType
from runstate.rows import FlowRun


@rule(leaving={StateType.CANCELLING}, entering=frozenset(StateType) - {StateType.CANCELLED})
def finish_cancelling(proposal: Proposal[FlowRun]) -> Reject:
    """A run that is being cancelled can only be cancelled."""
    return Reject(reason="The run is being cancelled.")


@rule(leaving={StateType.SCHEDULED, StateType.PAUSED}, entering={StateType.CANCELLING})
def cancel_at_once_without_infrastructure(proposal: Proposal[FlowRun]) -> Reject | None:
    """Where nothing has to be torn down, cancelling is done: scheduled runs without infrastructure, suspended runs."""
    initial = proposal.initial
    if initial is None:
        return None
    waits = initial.is_scheduled and (proposal.run.infrastructure_pid is None or initial.name == "Resuming")
    suspended = initial.is_paused and initial.details.pause_reschedule
    if not (waits or suspended):
        return None
    return Reject(
        reason="There is no infrastructure to tear down.", instead=cancelled(message=proposal.proposed.message)
    )

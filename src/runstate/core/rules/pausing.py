"""Pausing, suspending and resuming flow runs."""

from runstate.core.proposal import Abort, Amend, Proposal, Reject, rule
from runstate.core.states import failed
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun

PAUSED = frozenset({StateType.PAUSED})
AFTER_A_PAUSE = FINAL_TYPES | {StateType.RUNNING, StateType.SCHEDULED}


@rule(entering=PAUSED)
def pause_while_running(proposal: Proposal[FlowRun]) -> Abort | Reject | None:
    """Only a RUNNING flow run can be paused."""
    if proposal.initial is None:
        return Abort(reason="A run without a state cannot be paused.")
    return (
        None
        if proposal.initial.is_running
        else Reject(reason=f"Only a RUNNING run can be paused: it is in {proposal.initial_name}.")
    )


@rule(entering=PAUSED)
def pause_once_for_each_key(proposal: Proposal[FlowRun]) -> Reject | None:
    """A flow run pauses once for each pause key."""
    if proposal.proposed.details.pause_key in proposal.run.policy.pause_keys:
        return Reject(reason="The run has already been paused with this pause key.")
    return None


@rule(entering=PAUSED)
def suspend_needs_deployment(proposal: Proposal[FlowRun]) -> Abort | None:
    """Only a flow run with a deployment can be suspended, and no subflow run: others could not be started again."""
    if not proposal.proposed.details.pause_reschedule:
        return None
    if proposal.run.parent_task_run_id is not None:
        return Abort(reason="A subflow run cannot be suspended.")
    return Abort(reason="Only a run of a deployment can be suspended.") if proposal.run.deployment_id is None else None


@rule(entering=PAUSED)
def note_the_pause(proposal: Proposal[FlowRun]) -> Amend:
    """The policy of a paused run records the pause key. A pause without a key gets a generated one."""
    policy = proposal.run.policy
    # The generated key is part of the proposal, because rules draw nothing at random.
    key = proposal.proposed.details.pause_key or str(proposal.pause_key)
    # Sorted, so that the stored policy does not depend on the order of a set.
    keys = tuple(sorted({*policy.pause_keys, key}))
    return Amend(after_bookkeeping={"policy": policy.model_copy(update={"pause_keys": keys})})


@rule(leaving=PAUSED)
def leave_pause_only_to_resume_or_end(proposal: Proposal[FlowRun]) -> Reject | None:
    """A PAUSED run can only become RUNNING, SCHEDULED or final. A refused proposal marks the run as resuming."""
    if proposal.proposed.type in AFTER_A_PAUSE:
        return None
    return Reject(
        reason="A paused run can only be resumed, be scheduled or end.", after_bookkeeping=_resuming(proposal)
    )


@rule(leaving=PAUSED)
def resume_suspended_needs_deployment(proposal: Proposal[FlowRun]) -> Reject | None:
    """A suspended run without a deployment stays suspended, because nothing could start it."""
    initial = proposal.initial
    if initial is None or not initial.details.pause_reschedule or proposal.run.deployment_id is not None:
        return None
    return Reject(
        reason="The suspended run has no deployment that could start it.", after_bookkeeping=_resuming(proposal)
    )


@rule(leaving=PAUSED)
def expired_pause_fails(proposal: Proposal[FlowRun]) -> Reject | None:
    """A run that is resumed after its pause expired becomes FAILED."""
    until = proposal.initial.details.pause_timeout if proposal.initial else None
    if until is None or until >= proposal.now:
        return None
    return Reject(
        reason="The pause has expired.",
        instead=failed(message="The flow was paused and never resumed."),
        after_bookkeeping=_resuming(proposal) if proposal.quirks else {},
    )


@rule(leaving=PAUSED)
def note_the_resuming(proposal: Proposal[FlowRun]) -> Amend:
    """A run that leaves a pause is marked as resuming until it enters RUNNING or ends."""
    if proposal.quirks:
        return Amend(after_bookkeeping=_resuming(proposal))
    # Before the bookkeeping, which then does not count the resumption as a further run.
    return Amend(run=_resuming(proposal))


def _resuming(proposal: Proposal[FlowRun]) -> dict[str, object]:
    return {"policy": proposal.run.policy.model_copy(update={"resuming": True})}

"""Scheduled times and claims."""

from typing import Any

from runstate.core.proposal import ANY, Abort, Amend, Proposal, Reject, Wait, rule
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING


@rule(leaving={PENDING, RUNNING, StateType.CANCELLING, StateType.CANCELLED}, entering={PENDING})
def claim_once(proposal: Proposal[Any]) -> Abort | Amend | None:
    """A run is claimed once: a second claim is aborted. A claimed run can enter a PENDING state of another name."""
    initial, proposed = proposal.initial, proposal.proposed
    # A worker reports its progress before the start by further PENDING states with names of their own.
    moves_on = initial is not None and initial.is_pending and proposed.name not in (initial.name, "Pending")
    if initial is None or not moves_on:
        return Abort(reason=f"The run is in {proposal.initial_name} and cannot be claimed.")
    return Amend(state=proposed.with_details(scheduled_time=initial.details.scheduled_time))


@rule(leaving={SCHEDULED}, entering={PENDING})
def carry_scheduled_time(proposal: Proposal[Any]) -> Amend | None:
    """A claimed run keeps its scheduled time."""
    if proposal.initial is None or proposal.proposed.details.scheduled_time is not None:
        return None
    return Amend(state=proposal.proposed.with_details(scheduled_time=proposal.initial.details.scheduled_time))


@rule(leaving={SCHEDULED, PENDING}, entering={RUNNING})
def wait_for_scheduled_time(proposal: Proposal[Any]) -> Wait | None:
    """A run waits for its scheduled time."""
    due = proposal.initial.details.scheduled_time if proposal.initial else None
    if due is None or due <= proposal.now:
        return None
    # By the clock of the server: a client whose clock is ahead does not start earlier.
    return Wait(reason="The scheduled time is in the future.", seconds=(due - proposal.now).total_seconds())


@rule(leaving={SCHEDULED, PENDING}, entering={PENDING, RUNNING})
def carry_task_parameters(proposal: Proposal[TaskRun]) -> Amend | None:
    """A background task run keeps the id of its parameters."""
    if proposal.initial is None or proposal.initial.details.task_parameters_id is None:
        return None
    kept = proposal.initial.details.task_parameters_id
    return Amend(state=proposal.proposed.with_details(task_parameters_id=kept))


@rule(leaving=ANY, entering={SCHEDULED})
def late_once_and_only_when_scheduled(proposal: Proposal[FlowRun]) -> Reject | None:
    """Only a SCHEDULED run can become Late, and only once."""
    # By name, as in the reference: Late is no type of its own.
    if proposal.proposed.name != "Late":
        return None
    if proposal.initial is None or not proposal.initial.is_scheduled:
        return Reject(reason="Only a scheduled run can become late.")
    return Reject(reason="The run is already late.") if proposal.initial.name == "Late" else None

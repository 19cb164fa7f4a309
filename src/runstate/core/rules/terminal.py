"""Leaving a final state, and results that must not be lost."""

from typing import Any

from runstate.core.proposal import Abort, Amend, Proposal, Reject, rule
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun, TaskRun

NEVER_AFTER_THE_END = frozenset({StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED})
COMPLETED = frozenset({StateType.COMPLETED})
NOT_FINAL = frozenset(StateType) - FINAL_TYPES
KEPT = "The run has completed and its result is kept."


@rule(leaving=FINAL_TYPES, entering=NEVER_AFTER_THE_END)
def end_is_the_end(proposal: Proposal[Any]) -> Abort:
    """A run that has ended cannot be paused, cancelled in steps or crash."""
    return Abort(reason=f"The run has already ended as {proposal.initial_name}.")


@rule(leaving=COMPLETED, entering=NOT_FINAL)
def keep_result_of_flow_run(proposal: Proposal[FlowRun]) -> Reject | None:
    """A flow run that completed with a result that is kept does not run again."""
    return Reject(reason=KEPT) if proposal.initial and proposal.initial.persisted else None


@rule(leaving=COMPLETED, entering=COMPLETED)
def keep_result_from_being_lost(proposal: Proposal[FlowRun]) -> Reject | None:
    """A completed flow run's result that is kept is not replaced by none."""
    lost = proposal.initial and proposal.initial.persisted and not proposal.proposed.persisted
    return Reject(reason="The run's result would be lost.") if lost else None


@rule(leaving=FINAL_TYPES, entering={StateType.SCHEDULED})
def reschedule_needs_deployment(proposal: Proposal[FlowRun]) -> Abort | None:
    """A flow run that has ended is scheduled again only if a deployment says where it would run."""
    if proposal.run.deployment_id is None:
        return Abort(reason="Only a run of a deployment can be scheduled again.")
    return None


@rule(leaving=FINAL_TYPES, entering=NOT_FINAL)
def start_flow_run_anew(proposal: Proposal[FlowRun]) -> Amend:
    """A flow run that leaves a final state forgets its pauses and notes how it is retried."""
    retry_type = "reschedule" if proposal.proposed.is_scheduled else None
    forgotten = {"resuming": False, "pause_keys": (), "retry_type": retry_type}
    return Amend(run={"policy": proposal.run.policy.model_copy(update=forgotten)})


@rule(leaving=COMPLETED)
def keep_result_of_task_run(proposal: Proposal[TaskRun]) -> Reject | None:
    """A task run that completed with a result that is kept stays completed."""
    return Reject(reason=KEPT) if proposal.initial and proposal.initial.persisted else None


@rule(leaving=FINAL_TYPES, entering=NOT_FINAL)
def start_task_run_anew(proposal: Proposal[TaskRun]) -> Amend:
    """A task run that leaves a final state counts from 0; in a later attempt of its flow run it is Retrying."""
    attempt = proposal.flow_run.run_count if proposal.flow_run else 0
    again = proposal.proposed.is_running and proposal.run.flow_run_run_count < attempt
    renamed = proposal.proposed.fresh_copy(name="Retrying") if again else None
    return Amend(run={"run_count": 0}, state=renamed)

"""Final states and persisted results."""

from typing import Any

from runstate.core.proposal import Abort, Amend, Proposal, Reject, rule
from runstate.documents.states import FINAL_TYPES, StateType
from runstate.rows import FlowRun, TaskRun

NEVER_AFTER_THE_END = frozenset({StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED})
COMPLETED = frozenset({StateType.COMPLETED})
NOT_FINAL = frozenset(StateType) - FINAL_TYPES
KEPT = "The run has completed and its result is persisted."


@rule(leaving=FINAL_TYPES, entering=NEVER_AFTER_THE_END)
def final_states_are_terminal(proposal: Proposal[Any]) -> Abort:
    """A run in a final state cannot become PAUSED, CANCELLING or CRASHED."""
    return Abort(reason=f"The run has already ended as {proposal.initial_name}.")


@rule(leaving=COMPLETED, entering=NOT_FINAL)
def keep_result_of_flow_run(proposal: Proposal[FlowRun]) -> Reject | None:
    """A flow run that completed with a persisted result cannot leave the final states."""
    return Reject(reason=KEPT) if proposal.initial and proposal.initial.persisted else None


@rule(leaving=COMPLETED, entering=COMPLETED)
def keep_persisted_result(proposal: Proposal[FlowRun]) -> Reject | None:
    """The persisted result of a completed flow run cannot be replaced by a state without one."""
    # Only the state says where the result is.
    lost = proposal.initial and proposal.initial.persisted and not proposal.proposed.persisted
    return Reject(reason="The persisted result of the run would be lost.") if lost else None


@rule()
def retry_only_after_the_end(proposal: Proposal[FlowRun]) -> Abort | None:
    """Only a flow run that has ended can be retried by `retryFlowRun`."""
    if proposal.initial is not None and proposal.initial.is_final:
        return None
    return Abort(reason=f"Only a run that has ended can be retried: it is in {proposal.initial_name or 'no state'}.")


@rule(leaving=FINAL_TYPES, entering={StateType.SCHEDULED})
def reschedule_needs_deployment(proposal: Proposal[FlowRun]) -> Abort | None:
    """A flow run that has ended can be scheduled again only if it has a deployment."""
    if proposal.run.deployment_id is None:
        return Abort(reason="Only a run of a deployment can be scheduled again.")
    return None


@rule(leaving=FINAL_TYPES, entering=NOT_FINAL)
def reset_flow_run(proposal: Proposal[FlowRun]) -> Amend:
    """The policy of a flow run that leaves a final state is reset: pause keys, resuming and retry type."""
    retry_type = "reschedule" if proposal.proposed.is_scheduled else None
    reset = {"resuming": False, "pause_keys": (), "retry_type": retry_type}
    return Amend(run={"policy": proposal.run.policy.model_copy(update=reset)})


@rule(leaving=COMPLETED)
def keep_result_of_task_run(proposal: Proposal[TaskRun]) -> Reject | None:
    """A task run that completed with a persisted result stays COMPLETED."""
    return Reject(reason=KEPT) if proposal.initial and proposal.initial.persisted else None


@rule(leaving=FINAL_TYPES, entering=NOT_FINAL)
def reset_task_run(proposal: Proposal[TaskRun]) -> Amend:
    """The run count of a task run that leaves a final state is reset. In a retry of its flow run, it is Retrying."""
    attempt = proposal.flow_run.run_count if proposal.flow_run else 0
    # Only in a later attempt of the flow run: a second run within one attempt is no retry.
    again = proposal.proposed.is_running and proposal.run.flow_run_run_count < attempt
    renamed = proposal.proposed.fresh_copy(name="Retrying") if again else None
    return Amend(run={"run_count": 0}, state=renamed)

"""Task runs and the state of their flow run."""

from runstate.core.proposal import ANY, Abort, Proposal, Reject, rule
from runstate.core.states import State
from runstate.documents.states import StateDetails, StateType
from runstate.rows import TaskRun


@rule(leaving=ANY, entering={StateType.RUNNING})
def run_only_in_running_flow(proposal: Proposal[TaskRun]) -> Abort | Reject | None:
    """A task run starts only while its flow run is RUNNING. If the flow run is PAUSED, the task run is NotReady."""
    if proposal.flow_run is None or proposal.flow_run.state_type is StateType.RUNNING:
        return None
    if proposal.flow_state is None or not proposal.flow_state.is_paused:
        # Aborted, not rejected: no other state would let this task run.
        return Abort(reason=f"The flow run is not running: it is in {proposal.flow_run.state_name or 'no state'}.")
    pause = proposal.flow_state.details
    # They tell the client of the task how long the pause lasts, and whether to leave.
    details = StateDetails(pause_timeout=pause.pause_timeout, pause_reschedule=pause.pause_reschedule)
    not_ready = State(type=StateType.PAUSED, name="NotReady", message="The flow run is paused.", details=details)
    return Reject(reason="The flow run is paused.", instead=not_ready)

"""States of runs: flowRunState, taskRunState, deleteFlowRunState, deleteTaskRunState."""

from runstate.core.commands import run_states
from runstate.documents.access import Scope
from runstate.errors import InvalidInput, NotFound
from runstate.graphql.families.family import Delete, Family, by_id, deletion
from runstate.graphql.published import FlowRunState, TaskRunState

PROBLEMS = (InvalidInput, NotFound)
FLOW = Delete(
    run_states.delete_flow_run_state,
    "Delete a state that a flow run has left. Its version stays unused.",
    PROBLEMS,
    "DeleteStateResult",
)
TASK = Delete(
    run_states.delete_task_run_state,
    "Delete a state that a task run has left. Its version stays unused.",
    PROBLEMS,
    "DeleteStateResult",
)
FAMILY = Family(
    FlowRunState,
    {"flow_run_state": by_id(FlowRunState), "task_run_state": by_id(TaskRunState)},
    {
        "delete_flow_run_state": deletion(FlowRunState, FLOW, Scope.ADMIN),
        "delete_task_run_state": deletion(TaskRunState, TASK, Scope.ADMIN),
    },
)

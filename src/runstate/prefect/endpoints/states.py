"""Histories of runs."""

from typing import Any

from runstate.documents.access import Scope
from runstate.prefect import reading
from runstate.prefect.endpoint import Call, as_uuid, endpoint
from runstate.rows import FlowRunState, TaskRunState


@endpoint("GET", "/flow_run_states/", Scope.READ)
async def of_flow_run(call: Call) -> Any:
    """Return the states of a flow run in the order of their times."""
    run_id = as_uuid(call.query("flow_run_id") or "", "flow_run_id")
    return await reading.states(call, FlowRunState, FlowRunState.run_id == run_id)


@endpoint("GET", "/task_run_states/", Scope.READ)
async def of_task_run(call: Call) -> Any:
    """Return the states of a task run in the order of their times."""
    run_id = as_uuid(call.query("task_run_id") or "", "task_run_id")
    return await reading.states(call, TaskRunState, TaskRunState.run_id == run_id)

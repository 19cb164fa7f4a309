"""Runs over time, and the graph of a flow run."""

from typing import Annotated, Any, Final

import sqlalchemy as sa
from pydantic import Field, create_model

from runstate.database.queries import graph, history
from runstate.database.queries.graph import GraphNode
from runstate.database.queries.intervals import Intervals
from runstate.documents.access import Scope
from runstate.documents.intervals import Interval
from runstate.documents.states import RunKind
from runstate.prefect import reading
from runstate.prefect.bodies import Time
from runstate.prefect.endpoint import Call, endpoint
from runstate.prefect.pages import BODIES, conditions
from runstate.rows import FlowRun, FlowRunState, TaskRun

SPAN: Final[dict[str, Any]] = {
    "history_start": (Time, ...),
    "history_end": (Time, ...),
    "history_interval_seconds": (Annotated[float, Field(ge=1)], ...),
}
FlowRunHistory: Any = create_model("FlowRunHistory", __base__=BODIES[FlowRun], __module__=__name__, **SPAN)
TaskRunHistory: Any = create_model("TaskRunHistory", __base__=BODIES[TaskRun], __module__=__name__, **SPAN)


@endpoint("POST", "/flow_runs/history", Scope.READ)
async def of_flow_runs(call: Call, body: FlowRunHistory) -> Any:
    """Return the numbers of flow runs by state in intervals of time."""
    return await _history(call, FlowRun, body)


@endpoint("POST", "/task_runs/history", Scope.READ)
async def of_task_runs(call: Call, body: TaskRunHistory) -> Any:
    """Return the numbers of task runs by state in intervals of time."""
    return await _history(call, TaskRun, body)


async def _history(call: Call, row: type[FlowRun | TaskRun], body: Any) -> Any:
    start, end = body.history_start, body.history_end
    over = Intervals.over(start, end, Interval(seconds=body.history_interval_seconds))
    async with call.database.read() as connection:
        where = sa.and_(sa.true(), *conditions(row, body))
        counted = (await connection.execute(history.history(row, where, over, call.now))).all()
    return [
        {"interval_start": each.start, "interval_end": each.end, "states": [_count(state) for state in each.states]}
        for each in history.filled(over, counted)
    ]


def _count(state: history.HistoryState) -> dict[str, Any]:
    return {
        "state_type": state.state_type.value,
        "state_name": state.state_name,
        "count_runs": state.count,
        "sum_estimated_run_time": state.estimated_run_time_seconds,
        "sum_estimated_lateness": state.estimated_lateness_seconds,
    }


@endpoint("GET", "/flow_runs/{id}/graph-v2", Scope.READ)
async def graph_of(call: Call) -> Any:
    """Return the task runs and subflow runs of a flow run, with what depends on what."""
    run = await reading.flow_run(call, call.id())
    async with call.database.read() as connection:
        found = graph.nodes((await connection.execute(graph.task_runs_of(call.id()))).all())
    states = await reading.states(call, FlowRunState, FlowRunState.run_id == call.id())
    return {
        "start_time": run["start_time"] or run["expected_start_time"],
        "end_time": run["end_time"],
        "root_node_ids": [each.run_id for each in found if not each.parents and not each.encapsulating],
        "nodes": [[each.run_id, _node(each)] for each in found],
        "artifacts": [],
        "states": [{name: each[name] for name in ("id", "timestamp", "type", "name")} for each in states],
    }


def _node(node: GraphNode) -> dict[str, Any]:
    return {
        "kind": "flow-run" if node.kind is RunKind.FLOW_RUN else "task-run",
        "id": node.run_id,
        "label": node.label,
        "state_type": node.state_type.value if node.state_type else None,
        "start_time": node.start_time,
        "end_time": node.end_time,
        **{name: [{"id": each} for each in getattr(node, name)] for name in ("parents", "children", "encapsulating")},
        "artifacts": [],
    }

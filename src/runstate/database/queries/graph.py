"""The graph of a flow run: its task runs and subflow runs, and the results that each uses as input."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from runstate.documents.states import RunKind, StateType
from runstate.errors import InvalidInput
from runstate.rows import Flow, FlowRun, TaskRun

MOST_NODES: Final = 10_000
PARENTS: Final = "__parents__"
"""The input of a task run that lists the task runs in which it was called."""


@dataclass(frozen=True)
class GraphNode:
    """A task run, or the subflow run that a task run represents."""

    kind: RunKind
    """Kind of the run: task run or flow run."""
    run_id: UUID
    """Id of the task run or the subflow run."""
    task_run_id: UUID
    """Id of the task run: the node itself, or the task run that represents the subflow run."""
    label: str
    """Name of the task run; for a subflow run `flow / run`, the names of both."""
    state_type: StateType | None
    """Type of the current state."""
    start_time: datetime
    """Time at which it started, or else was expected to start."""
    end_time: datetime | None
    """Time at which it ended; null if it has not ended."""
    parents: list[UUID] = field(default_factory=list)
    """Run ids of the nodes whose results are its inputs."""
    children: list[UUID] = field(default_factory=list)
    """Run ids of the nodes that have its result as input."""
    encapsulating: list[UUID] = field(default_factory=list)
    """Run ids of the nodes in which it was called."""


class Edge(Enum):
    """The relation of a task run to one that its inputs name."""

    GIVEN = "GIVEN"
    CALLED_IN = "CALLED_IN"


def task_runs_of(flow_run_id: UUID) -> sa.Select[Any]:
    """Return the query for the rows that `nodes` reads: task runs of a flow run, at most one more than allowed."""
    subflow, flow = aliased(FlowRun), aliased(Flow)
    newest = (
        sa.select(FlowRun.id)
        .where(FlowRun.parent_task_run_id == TaskRun.id)
        # Ids are ordered by time (UUIDv7).
        .order_by(FlowRun.id.desc())
        .limit(1)
        .correlate(TaskRun)
        .scalar_subquery()
    )
    columns = (TaskRun.id, TaskRun.name, TaskRun.task_inputs)
    times = [each for run in (TaskRun, subflow) for each in _times(run)]
    return (
        sa.select(*columns, subflow.id, flow.name, subflow.name, *times)
        .select_from(TaskRun)
        .outerjoin(subflow, subflow.id == newest)
        .outerjoin(flow, flow.id == subflow.flow_id)
        .where(TaskRun.flow_run_id == flow_run_id)
        # One more tells that there are too many.
        .limit(MOST_NODES + 1)
    )


def _times(run: Any) -> list[Any]:
    return [run.state_type, run.start_time, run.expected_start_time, run.end_time]


def nodes(rows: Iterable[Any]) -> list[GraphNode]:
    """Return the nodes of the graph, ordered by start. Runs without a start or expected start are left out.

    Raises InvalidInput if there are too many rows.
    """
    read = list(rows)
    if len(read) > MOST_NODES:
        raise InvalidInput(f"The flow run has more than {MOST_NODES} task runs, too many for a graph.")
    known = {row[0]: node for row in read if (node := _node(*row))}
    # After all nodes are known, because an input can name a task run that follows in the list.
    edges = {row[0]: list(_edges(row[2])) for row in read if row[0] in known}
    for task_run, named in edges.items():
        node = known[task_run]
        # Several inputs of a task run can name the same one.
        for edge, other_id in dict.fromkeys(named):
            other = known.get(other_id)
            if other is None or other is node:
                continue
            if edge is Edge.CALLED_IN:
                node.encapsulating.append(other.run_id)
            else:
                node.parents.append(other.run_id)
                other.children.append(node.run_id)
    return sorted(known.values(), key=_place)


def _place(node: GraphNode) -> tuple[Any, ...]:
    return node.start_time, node.end_time is None, node.end_time or node.start_time, node.run_id


def _node(
    task_run_id: UUID, name: str, _: Any, subflow_id: UUID | None, flow: str | None, subflow: str | None, *times: Any
) -> GraphNode | None:
    state_type, start, expected, end = times[4:] if subflow_id else times[:4]
    begins = start or expected
    if begins is None:
        return None
    if end is None and state_type is StateType.COMPLETED:
        end = expected
    kind, label = (RunKind.FLOW_RUN, f"{flow} / {subflow}") if subflow_id else (RunKind.TASK_RUN, name)
    return GraphNode(kind, subflow_id or task_run_id, task_run_id, label, state_type, begins, end)


def _edges(task_inputs: Any) -> Iterator[tuple[Edge, UUID]]:
    """Yield the task runs that inputs name. Inputs come from clients, so items of an unknown form are ignored."""
    for name, named in task_inputs.items() if isinstance(task_inputs, dict) else ():
        for each in named if isinstance(named, list) else ():
            if isinstance(each, dict) and isinstance(each.get("id"), str) and (known := _uuid(each["id"])):
                yield Edge.CALLED_IN if name == PARENTS else Edge.GIVEN, known


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

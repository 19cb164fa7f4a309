"""What a flow run was made of: its task runs and subflow runs, and what each got its inputs from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from runstate.documents.states import RunKind, StateType
from runstate.documents.task_inputs import CALLED_IN, TaskInput, TaskRunSource
from runstate.errors import InvalidInput
from runstate.rows import Flow, FlowRun, TaskRun

MOST_NODES: Final = 10_000


@dataclass(frozen=True)
class GraphNode:
    """A task run, or the subflow run that a task run stands for."""

    kind: RunKind
    """Whether it is a task run or a flow run."""
    run_id: UUID
    """Id of the task run or the subflow run."""
    task_run_id: UUID
    """Id of the task run: itself, or the one that stands for the subflow run."""
    label: str
    """Name of the task run, or names of the flow and the subflow run."""
    state_type: StateType | None
    """Type of the current state."""
    start_time: datetime
    """When it started, or was expected to."""
    end_time: datetime | None
    """When it ended; null: it has not."""
    parents: list[UUID] = field(default_factory=list)
    """Run ids of the nodes whose results it was given."""
    children: list[UUID] = field(default_factory=list)
    """Run ids of the nodes that were given its result."""
    encapsulating: list[UUID] = field(default_factory=list)
    """Run ids of the nodes that it was called in."""


class Edge(Enum):
    """What a task run has to do with one that its inputs name."""

    GIVEN = "GIVEN"
    CALLED_IN = "CALLED_IN"


def task_runs_of(flow_run_id: UUID) -> sa.Select[Any]:
    """The columns that `nodes` wants, for each task run of a flow run; one more than there may be at most."""
    subflow, flow = aliased(FlowRun), aliased(Flow)
    newest = (
        sa.select(FlowRun.id)
        .where(FlowRun.parent_task_run_id == TaskRun.id)
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
        .limit(MOST_NODES + 1)
    )


def _times(run: Any) -> list[Any]:
    return [run.state_type, run.start_time, run.expected_start_time, run.end_time]


def nodes(rows: Iterable[Any]) -> list[GraphNode]:
    """The graph that task runs make up, in the order of their starts. Those that were never to start are left out."""
    read = list(rows)
    if len(read) > MOST_NODES:
        raise InvalidInput(f"The graph has more than {MOST_NODES} nodes.")
    known = {row[0]: node for row in read if (node := _node(*row))}
    edges = {row[0]: list(_edges(row[2])) for row in read if row[0] in known}
    for task_run, named in edges.items():
        node = known[task_run]
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


def _edges(task_inputs: Iterable[TaskInput]) -> Iterator[tuple[Edge, UUID]]:
    """Yield the task runs that inputs come from."""
    for each in task_inputs:
        edge = Edge.CALLED_IN if each.name == CALLED_IN else Edge.GIVEN
        for source in each.sources:
            if isinstance(source, TaskRunSource):
                yield edge, source.id

"""The graph of a flow run."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, cast
from uuid import UUID

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.queries import graph
from runstate.database.queries.graph import GraphNode
from runstate.documents.states import RunKind
from runstate.errors import InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.pagination.keyset import PageArguments
from runstate.graphql.pagination.sizes import checked_size
from runstate.graphql.published import Artifact, FlowRun, Run, TaskRun
from runstate.graphql.types.conditions import Clause, as_uuid, is_set
from runstate.graphql.types.derive import extends, register_type
from runstate.graphql.types.fields import field, object_type
from runstate.graphql.types.input_values import read
from runstate.graphql.types.orders import Direction, OrderBy

LARGEST: Final = 1000
MOST_ARTIFACTS: Final = 100
First = strawberry.argument(description=f"Number of nodes on the page, from 1 to {LARGEST}; {LARGEST} by default.")
After = strawberry.argument(description="Only nodes after the one with this run id.")
Since = strawberry.argument(description="Only nodes that ended at this time or later, or have not ended.")

register_type(GraphNode)


@extends(cast("Any", GraphNode), name="run")
async def run_of_node(root: strawberry.Parent[GraphNode], info: Info) -> Run | None:
    """The task run or the subflow run; null if it was deleted meanwhile."""
    row: type[Run] = FlowRun if root.kind is RunKind.FLOW_RUN else TaskRun
    return await info.context.load(info, row, root.run_id)


def _is_no_result(table: sa.FromClause) -> Clause:
    return sa.or_(table.c.type.is_(None), table.c.type != "result")


OLDEST: Any = read(OrderBy.__class_getitem__(Artifact).resolve_type(), {"created": Direction.ASC}, None)
ARTIFACTS: Final[PageArguments[Any]] = PageArguments(
    first=MOST_ARTIFACTS, order_by=[OLDEST], conditions=(_is_no_result,)
)


@extends(cast("Any", GraphNode), size=MOST_ARTIFACTS)
async def artifacts(root: strawberry.Parent[GraphNode], info: Info) -> list[Artifact]:
    """The artifacts of the run, except results; oldest first, at most 100."""
    key = "flow_run_id" if root.kind is RunKind.FLOW_RUN else "task_run_id"
    return await info.context.children(info, Artifact, ARTIFACTS, key, root.run_id)


@object_type
class FlowRunGraph:
    """The task runs and subflow runs of a flow run in the order of their starts; subflow runs are single nodes."""

    run: strawberry.Private[FlowRun]
    found: strawberry.Private[Sequence[GraphNode]]
    page: strawberry.Private[Sequence[GraphNode]]

    @field
    def start_time(self) -> datetime | None:
        """Start time of the flow run, or its expected start time."""
        return self.run.start_time or self.run.expected_start_time

    @field
    def end_time(self) -> datetime | None:
        """End time of the flow run; null if it has not ended."""
        return self.run.end_time

    @field
    def node_count(self) -> int:
        """Number of nodes on all pages."""
        return len(self.found)

    @field
    def root_node_ids(self) -> list[strawberry.ID]:
        """Run ids of the nodes, on all pages, that depend on no other node and were not called inside another one."""
        roots = [node for node in self.found if not node.parents and not node.encapsulating]
        return [strawberry.ID(str(node.run_id)) for node in roots]

    @field
    def nodes(self) -> list[GraphNode]:
        """The nodes on the page."""
        return list(self.page)

    @field
    def has_next_page(self) -> bool:
        """True if more nodes follow."""
        return bool(self.page) and self.page[-1] is not self.found[-1]

    @field
    def end_cursor(self) -> strawberry.ID | None:
        """Run id of the last node on the page, for `after`."""
        return strawberry.ID(str(self.page[-1].run_id)) if self.page else None


@extends(FlowRun, name="graph", size=LARGEST, needs={"start_time", "expected_start_time", "end_time"})
async def graph_of_flow_run(
    root: strawberry.Parent[FlowRun],
    info: Info,
    first: Annotated[int | None, First] = UNSET,
    after: Annotated[strawberry.ID | None, After] = UNSET,
    since: Annotated[datetime | None, Since] = UNSET,
) -> FlowRunGraph:
    """The task runs and subflow runs of the flow run with their dependencies. More than 10,000 nodes are an error."""
    size = checked_size(first, LARGEST) if first is not None and is_set(first) else LARGEST
    # Read for each page as a whole: the order of the nodes and their edges depend on all of them.
    found = graph.nodes(await info.context.fetch(graph.task_runs_of(root.id)))
    if is_set(since):
        found = [node for node in found if node.end_time is None or (since and node.end_time >= since)]
    start = _place(found, after) + 1 if is_set(after) else 0
    return FlowRunGraph(run=root, found=found, page=found[start : start + size])


def _place(found: Sequence[GraphNode], after: str | None) -> int:
    wanted: UUID | None = as_uuid(str(after))
    for place, node in enumerate(found):
        if node.run_id == wanted:
            return place
    raise InvalidInput("The graph has no node with this id.", ("after",))

"""Flow runs with their subflow runs at any depth."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.rows import FlowRun, TaskRun


def tree_of(flow_run_id: UUID) -> sa.Select[Any]:
    """Select the ids of a flow run, which may be unknown, and of all its subflow runs."""
    tree = sa.select(sa.literal(flow_run_id, sa.Uuid()).label("id")).cte(recursive=True)
    subflows = (
        sa.select(FlowRun.id)
        .join(TaskRun, TaskRun.id == FlowRun.parent_task_run_id)
        .join(tree, tree.c.id == TaskRun.flow_run_id)
    )
    # UNION ends the recursion even if damaged data has a cycle.
    return sa.select(tree.union(subflows).c.id)

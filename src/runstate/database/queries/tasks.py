"""The tasks of a flow: the task keys of its latest flow runs."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from runstate.database.dialects import among_selected
from runstate.rows import FlowRun, TaskRun


def tasks_of(flow_id: UUID, runs: int) -> sa.Select[Any]:
    """Return the query for each task key in the latest runs of a flow, with the id of its newest task run."""
    started = sa.select(FlowRun.id).where(FlowRun.flow_id == flow_id, FlowRun.expected_start_time.is_not(None))
    latest = started.order_by(FlowRun.expected_start_time.desc()).limit(runs)
    place = sa.func.row_number().over(partition_by=TaskRun.task_key, order_by=TaskRun.id.desc()).label("place")
    found = sa.select(TaskRun.task_key, TaskRun.id, place).where(among_selected(TaskRun.flow_run_id, latest)).subquery()
    return sa.select(found.c.task_key, found.c.id).where(found.c.place == 1).order_by(found.c.task_key)

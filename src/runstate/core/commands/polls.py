"""Polls of runners and workers that do not claim: they read due runs, and propose PENDING before they start one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from runstate.core.commands.work_pools import claimable_runs, find_pool, queues_of
from runstate.core.context import CommandContext
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries.claimable import due
from runstate.database.queries.work import MARKED_EVERY, mark_polled
from runstate.documents.pools import ClaimableFlowRuns
from runstate.rows import Deployment, FlowRun, WorkPool, WorkQueue


async def poll_deployments(
    context: CommandContext, ids: Collection[UUID], before: datetime, first: int
) -> Sequence[UUID]:
    """Return the ids of due runs of deployments in the order of their times, and mark the deployments as polled."""
    await _mark(context, Deployment, ids)
    mine = sa.select(FlowRun.id).where(among(FlowRun.deployment_id, sorted(set(ids))), due(before))
    ordered = mine.order_by(FlowRun.next_scheduled_start_time, FlowRun.id).limit(first)
    async with context.database.read() as connection:
        return (await connection.execute(ordered)).scalars().all()


async def poll_pool(context: CommandContext, document: ClaimableFlowRuns) -> Sequence[UUID]:
    """Return the ids of due runs of a pool within its limits, and mark the queues as polled.

    Nothing is claimed: two workers that poll at the same time get the same runs.
    """
    found = await claimable_runs(context, document)
    pool = await find_pool(context, WorkPool.name == document.work_pool)
    async with context.database.read() as connection:
        queues = await queues_of(connection, pool.id) if pool else []
    names = document.work_queues
    await _mark(context, WorkQueue, [each.id for each in queues if names is None or each.name in names])
    return found.runs


async def _mark(context: CommandContext, row: type[WorkQueue | Deployment], ids: Collection[UUID]) -> None:
    """Mark queues or deployments as polled. Without one that was not polled for a while, nothing is written."""
    table, now = table_of(row), context.clock()
    fresh = sa.select(table.c.id).where(among(table.c.id, sorted(set(ids))), table.c.last_polled > now - MARKED_EVERY)
    async with context.database.read() as connection:
        known = set((await connection.execute(fresh)).scalars())
    if missing := set(ids) - known:
        async with context.database.write() as transaction:
            await mark_polled(transaction.connection, missing, now, row)

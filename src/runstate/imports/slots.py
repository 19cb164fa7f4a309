"""Slots of imported runs: the reference keeps its leases outside the database, so they follow from the states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.rules.concurrency import GRACE_SECONDS, HOLDING, HOLDING_TASK
from runstate.database import bulk
from runstate.database.bulk import table_of
from runstate.documents.access import IMPORT
from runstate.documents.states import StateType
from runstate.imports.table import Columns
from runstate.rows import (
    ConcurrencyLease,
    ConcurrencyLimit,
    Deployment,
    FlowRun,
    FlowRunState,
    TaskRun,
    TaskRunState,
)

if TYPE_CHECKING:
    from runstate.imports.importer import Importer

HELD = ConcurrencyLimit.slot_decay_per_second == 0


async def hold_slots(importer: Importer) -> None:
    """Give a lease to each imported run that holds slots in its state, if it has none."""
    if importer.dry_run:
        return
    async with importer.connection() as connection:
        assert connection is not None  # noqa: S101 this is no dry run
        wanted = [*await _of_deployments(importer, connection), *await _of_tags(importer, connection)]
        known = await importer.present(connection, ConcurrencyLease, {each["id"] for each in wanted})
        leases = [each for each in wanted if each["id"] not in known]
        await bulk.load(connection, ConcurrencyLease, leases)
        limits = table_of(ConcurrencyLimit)
        for limit, number in sorted(Counter(each["limit_id"] for each in leases).items()):
            more = sa.update(limits).where(limits.c.id == limit).values(occupied=limits.c.occupied + number)
            await connection.execute(more)
        importer.report.tables["slots held by runs"].found += len(wanted)
        importer.report.tables["slots held by runs"].imported += len(leases)
        importer.report.tables["slots held by runs"].existing += len(known)


def _lease(importer: Importer, limit: UUID, run: UUID, id: UUID | None, *, expires: bool = False) -> Columns:
    return {
        # The same in a second import, which then finds the lease.
        "id": id or uuid5(run, str(limit)),
        "created": importer.now,
        "updated": importer.now,
        "limit_id": limit,
        "slots": 1,
        "holder": None,
        "run_id": run,
        "automatic": True,
        # A run that is pending has not started; as after a claim, its slot is freed if it never does.
        "expires": importer.now + timedelta(seconds=GRACE_SECONDS) if expires else None,
    }


async def _of_deployments(importer: Importer, connection: AsyncConnection) -> list[Columns]:
    """Return the leases of flow runs on the limits of their deployments."""
    asked = (
        sa.select(FlowRun.id, FlowRun.state_type, ConcurrencyLimit.id, FlowRunState.details)
        .join_from(FlowRun, Deployment, Deployment.id == FlowRun.deployment_id)
        .join(ConcurrencyLimit, ConcurrencyLimit.id == Deployment.concurrency_limit_id)
        .join(FlowRunState, FlowRunState.id == FlowRun.state_id)
        # A run that has entered a state here since has acquired its slots by the rules.
        .where(FlowRun.state_type.in_(HOLDING), FlowRunState.actor == IMPORT, HELD)
    )
    return [
        _lease(
            importer,
            limit,
            run,
            details.deployment_concurrency_lease_id,
            expires=kind is StateType.PENDING,
        )
        for run, kind, limit, details in await connection.execute(asked)
    ]


async def _of_tags(importer: Importer, connection: AsyncConnection) -> Iterator[Columns]:
    """Return the leases of task runs on the limits of their tags."""
    tags = sa.select(ConcurrencyLimit.name, ConcurrencyLimit.id).where(ConcurrencyLimit.name.startswith("tag:"), HELD)
    limits: dict[str, Any] = {name: key for name, key in await connection.execute(tags)}  # noqa: C416 rows are no pairs for the type checker
    running = (
        sa.select(TaskRun.id, TaskRun.tags)
        .join(TaskRunState, TaskRunState.id == TaskRun.state_id)
        .where(TaskRun.state_type.in_(HOLDING_TASK), TaskRunState.actor == IMPORT)
    )
    found = (await connection.execute(running)).all() if limits else []
    return (
        _lease(importer, limits[f"tag:{tag}"], run, None)
        for run, tags in found
        # A tag that is there twice takes one slot.
        for tag in set(tags)
        if f"tag:{tag}" in limits
    )

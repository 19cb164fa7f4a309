"""Commands for concurrency limits and their slots. A lease is only changed under the lock of its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.orchestrate import lock_limits, write_limits
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.command import TRIES, command
from runstate.core.commands.crud import Written, change, columns_of, fresh, insert_or_skip, remove
from runstate.core.commands.proposals import referred
from runstate.core.context import CommandContext
from runstate.core.slots import capacity, occupied, retry_delay, seconds_until_room
from runstate.database.dialects import among
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.documents.states import FINAL_TYPES, RunKind
from runstate.errors import InvalidInput, NotFound, Unavailable
from runstate.feed import SLOTS
from runstate.rows import ConcurrencyLease, ConcurrencyLimit
from runstate.rows.documents import create_document, update_document

RESERVED: Final = "deployment:"
"""Prefix of the names of limits that belong to deployments."""

CreateConcurrencyLimit = create_document(ConcurrencyLimit)
UpdateConcurrencyLimit = update_document(ConcurrencyLimit)


@dataclass(frozen=True, slots=True)
class Acquired:
    """The result of an acquisition: new leases, or a delay."""

    leases: Sequence[ConcurrencyLease] = ()
    retry_after_seconds: float | None = None
    """If a limit is full: seconds after which to try again."""


@command(ConcurrencyLimit, notify=SLOTS)
async def create_limit(context: CommandContext, document: Any) -> Written[ConcurrencyLimit]:
    """Create a limit, or update the one with this name."""
    columns = columns_of(document)
    if document.name.startswith(RESERVED):
        raise InvalidInput(f"Names that begin with `{RESERVED}` are reserved for limits of deployments.", ["name"])
    async with context.database.write() as transaction:
        connection = transaction.connection
        for _ in range(TRIES):  # an existing limit can be deleted before it is locked
            # A violated constraint would abort the whole transaction on PostgreSQL.
            if (made := await insert_or_skip(connection, ConcurrencyLimit, fresh(context) | columns)) is not None:
                return Written(made)
            if existing := await sql.lock_limits(connection, names=[document.name]):
                return Written(await _change(connection, existing[0], columns, context.clock()), created=False)
    # Only if other clients keep creating and deleting the limit.
    raise Unavailable


@command(ConcurrencyLimit, notify=SLOTS)
async def update_limit(context: CommandContext, document: Any) -> ConcurrencyLimit:
    """Update the given fields of a limit. A lower number of slots releases none that are held."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        limit = await _lock(connection, document.id)
        return await _change(connection, limit, columns_of(document), context.clock())


async def _lock(connection: AsyncConnection, limit_id: UUID) -> ConcurrencyLimit:
    """Lock a limit of clients and return it. Raise InvalidInput if it belongs to a deployment."""
    locked = await sql.lock_limits(connection, ids=[limit_id])
    if not locked:
        raise NotFound(limit_id)
    if locked[0].deployment_id is not None:
        raise InvalidInput(f"The limit belongs to deployment {locked[0].deployment_id}: use updateDeployment.", ["id"])
    return locked[0]


async def _change(
    connection: AsyncConnection, limit: ConcurrencyLimit, columns: dict[str, Any], now: datetime
) -> ConcurrencyLimit:
    if columns.get("slot_decay_per_second", limit.slot_decay_per_second) != limit.slot_decay_per_second:
        if occupied(limit, now) > 0:
            message = (
                "`slotDecayPerSecond` can only be changed while no slot is held. Release the leases or reset the limit."
            )
            raise InvalidInput(message, ["slotDecayPerSecond"])
        # Only leases whose slots are free again can be left; their expiry was computed with the old rate.
        await connection.execute(sa.delete(ConcurrencyLease).where(ConcurrencyLease.limit_id == limit.id))
        columns = columns | {"drained": None}
    changed = await change(connection, ConcurrencyLimit, {"id": limit.id}, columns, now)
    if changed is None:
        raise NotFound(limit.id)
    return changed


@command(ConcurrencyLimit, notify=SLOTS)
async def delete_limit(context: CommandContext, limit_id: UUID) -> None:
    """Delete a limit of clients with its leases."""
    async with context.database.write() as transaction:
        await _lock(transaction.connection, limit_id)
        await remove(transaction.connection, ConcurrencyLimit, limit_id, context.clock())


@command(ConcurrencyLimit, notify=None)
async def acquire_concurrency_slots(context: CommandContext, given: requests.AcquireConcurrencySlots) -> Acquired:
    """Acquire slots of all named limits, or of none if one is full; unknown and inactive limits are ignored."""
    async with context.database.write() as transaction:
        connection, now = transaction.connection, context.clock()
        # Runs are locked before limits, as in batches, to avoid deadlocks.
        run_id = await _lock_holder(connection, given.run) if given.run else None
        unit = await _lock_limits(connection, names=given.names)
        active = [limit for limit in unit.limits.values() if limit.active]
        # Waiting cannot help here, so the client gets an error in place of a delay.
        small = next((limit for limit in active if capacity(limit) < given.slots), None)
        if small is not None:
            most = int(capacity(small))
            raise InvalidInput(
                f"The limit {small.name} has only {most} slots: {given.slots} can never be acquired.", ("slots",)
            )
        if any(seconds_until_room(limit, given.slots, now) > 0 for limit in active):
            # A refused request writes nothing: with decay, it must not delay others.
            return Acquired(retry_after_seconds=_retry_after(active, given.slots, now, context.draw()))
        held: dict[str, Any] = {
            "run_id": run_id,
            "holder": given.holder,
            "expires": now + timedelta(seconds=given.lease_seconds),
        }
        acquired = [unit.acquire(limit.id, given.slots, now, id=context.new_id(), **held) for limit in active]
        await write_limits(transaction, unit, now)
    return Acquired(leases=acquired)


async def _lock_holder(connection: AsyncConnection, run: requests.RunRef) -> UUID:
    """Lock the run that is to hold slots and return its id. Raise InvalidInput if it has ended.

    Without the lock, the run could end meanwhile; its end has released its leases, and the new one would remain.
    """
    kind, run_id = referred(run)
    locked = (
        # Shared, as for transitions of task runs: all of them only need the flow run not to end.
        await sql.lock_flow_runs(connection, [run_id], shared=True)
        if kind is RunKind.FLOW_RUN
        else await sql.lock_task_runs(connection, [run_id])
    )
    if not locked:
        raise NotFound(run_id)
    if locked[0].run.state_type in FINAL_TYPES:
        raise InvalidInput("The run has ended. Only an unfinished run can hold slots.", ["run"])
    return run_id


def _retry_after(active: Sequence[ConcurrencyLimit], slots: int, now: datetime, draw: float) -> float:
    full = [limit for limit in active if seconds_until_room(limit, slots, now) > 0]
    return max(retry_delay(limit, slots, now, draw) for limit in full)


async def _lock_limits(connection: AsyncConnection, **which: Any) -> UnitOfWork:
    """Return a unit of work with the selected limits, locked, and the selected leases."""
    unit = UnitOfWork()
    await lock_limits(connection, unit, **which)
    return unit


@command(ConcurrencyLimit, notify=None)
async def release_concurrency_slots(context: CommandContext, given: requests.ReleaseConcurrencySlots) -> list[UUID]:
    """Release leases and return the ids of those that existed. Leases that a state of a run acquired are kept."""
    async with context.database.write() as transaction:
        now = context.clock()
        unit = await _lock_limits(transaction.connection, leases=given.lease_ids)
        # An id that is named twice is released once.
        known = [lease for each in dict.fromkeys(given.lease_ids) if (lease := unit.leases.get(each))]
        # A run still uses the slots of its state: releasing them would let another run exceed the limit.
        there = [lease for lease in known if not lease.automatic]
        for lease in there:
            # With decay, an earlier release has advanced this lease.
            unit.release(unit.leases[lease.id], now)
        await write_limits(transaction, unit, now)
    return [lease.id for lease in there]


@command(ConcurrencyLimit, notify=None)
async def renew_concurrency_leases(context: CommandContext, given: requests.RenewConcurrencyLeases) -> list[UUID]:
    """Let leases expire some seconds from now and return the ids of those that existed. Decay is not delayed."""
    async with context.database.write() as transaction:
        now = context.clock()
        unit = await _lock_limits(transaction.connection, leases=given.lease_ids)
        there = [lease for each in dict.fromkeys(given.lease_ids) if (lease := unit.leases.get(each))]
        for lease in there:
            unit.renew(lease, now + timedelta(seconds=given.lease_seconds), now)
        await write_limits(transaction, unit, now)
    return [lease.id for lease in there]


@command(ConcurrencyLimit, notify=SLOTS)
async def reset_limit(context: CommandContext, limit_id: UUID) -> ConcurrencyLimit:
    """Release all slots of a limit, regardless of their holders."""
    async with context.database.write() as transaction:
        connection = transaction.connection
        # Not `_lock`, which refuses limits of deployments: those can be reset, too.
        if not await sql.lock_limits(connection, ids=[limit_id]):
            raise NotFound(limit_id)
        await connection.execute(sa.delete(ConcurrencyLease).where(among(ConcurrencyLease.limit_id, [limit_id])))
        released = {"occupied": 0, "drained": None}
        limit = await change(connection, ConcurrencyLimit, {"id": limit_id}, released, context.clock())
    if limit is None:
        raise NotFound(limit_id)
    return limit

"""Concurrency limits and their slots, as clients handle them: whatever changes a lease holds the lock of its limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import lock_limits, write_limits
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.commands.flows import NO_SLOTS, fresh, put
from runstate.core.commands.retry import again
from runstate.core.commands.runs import referred
from runstate.core.slots import occupied, retry_delay, seconds_until_room
from runstate.database.dialects import among
from runstate.database.queries import orchestration as sql
from runstate.documents import requests
from runstate.documents.states import RunKind
from runstate.errors import InvalidInput, NotFound
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, FlowRun, TaskRun


@dataclass(frozen=True, slots=True)
class Taken:
    """The leases that were taken, or after how many seconds to ask again."""

    leases: Sequence[ConcurrencyLease] = ()
    retry_after_seconds: float | None = None


@again
async def create_limit(batcher: Batcher, given: requests.CreateConcurrencyLimit) -> tuple[UUID, bool] | InvalidInput:
    """Id of the limit with the name, and whether it is new; one that was there has what is given now."""
    now = batcher.clock()
    columns = {"limit": given.limit, "active": given.active, "slot_decay_per_second": given.slot_decay_per_second}
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        made = await put(connection, ConcurrencyLimit, fresh(batcher, now) | NO_SLOTS | columns | {"name": given.name})
        if made is not None:
            return made, True
        (there,) = await sql.lock_limits(connection, names=[given.name])
        asked = {name: value for name, value in columns.items() if name == "limit" or name in given.model_fields_set}
        problem = await _change(connection, there, asked, now)
    return problem or (there.id, False)


@again
async def update_limit(batcher: Batcher, given: requests.UpdateConcurrencyLimit) -> UUID | NotFound | InvalidInput:
    """Change what is given of a limit. Fewer slots than are held stop new entries only."""
    async with batcher.database.write() as transaction:
        found = await sql.lock_limits(transaction.connection, ids=[given.id])
        if not found:
            return NotFound(given.id)
        asked = {name: value for name in given.model_fields_set - {"id"} if (value := getattr(given, name)) is not None}
        problem = await _change(transaction.connection, found[0], asked, batcher.clock())
    return problem or given.id


async def _change(
    connection: AsyncConnection, limit: ConcurrencyLimit, asked: dict[str, Any], now: datetime
) -> InvalidInput | None:
    if asked.get("slot_decay_per_second", limit.slot_decay_per_second) != limit.slot_decay_per_second:
        if occupied(limit, now) > 0:
            message = "How slots decay can change only while none is held: wait, give them back or reset the limit."
            return InvalidInput(message, ("slotDecayPerSecond",))
        await connection.execute(sa.delete(ConcurrencyLease).where(ConcurrencyLease.limit_id == limit.id))
        asked["drained"] = None
    await connection.execute(
        sa.update(ConcurrencyLimit).where(ConcurrencyLimit.id == limit.id).values(**asked, updated=now)
    )
    return None


@again
async def delete_limit(batcher: Batcher, limit_id: UUID) -> bool:
    """Delete a limit with its leases."""
    async with batcher.database.write() as transaction:
        deleted = sa.delete(ConcurrencyLimit).where(ConcurrencyLimit.id == limit_id)
        return bool((await transaction.connection.execute(deleted)).rowcount)


@again
async def acquire_concurrency_slots(
    batcher: Batcher, given: requests.AcquireConcurrencySlots
) -> Taken | NotFound | InvalidInput:
    """Take slots of many limits at once, all or none; when one is full nothing is written."""
    kind, run_id = referred(given.run) if given.run else (None, None)
    async with batcher.database.write() as transaction:
        connection, now = transaction.connection, batcher.clock()
        if run_id and await sql.missing(connection, FlowRun if kind is RunKind.FLOW_RUN else TaskRun, {run_id}):
            return NotFound(run_id)
        unit = await _ledger(connection, now, names=given.names)
        active = [limit for limit in unit.limits.values() if limit.active]
        small = next((limit for limit in active if limit.limit < given.slots), None)
        if small is not None:
            return InvalidInput(f"The limit {small.name} has {small.limit} slots, never {given.slots}.", ("slots",))
        if any(seconds_until_room(limit, given.slots, now) > 0 for limit in active):
            return Taken(retry_after_seconds=_patience(active, given.slots, now, batcher.draw()))
        held: dict[str, Any] = {
            "run_id": run_id,
            "holder": given.holder,
            "expires": now + timedelta(seconds=given.lease_seconds),
        }
        taken = [unit.take(limit.id, given.slots, now, id=batcher.new_id(), **held) for limit in active]
        await write_limits(connection, unit, now)
    return Taken(leases=taken)


def _patience(active: Sequence[ConcurrencyLimit], slots: int, now: datetime, draw: float) -> float:
    full = [limit for limit in active if seconds_until_room(limit, slots, now) > 0]
    return max(retry_delay(limit, slots, now, draw) for limit in full)


async def _ledger(connection: AsyncConnection, now: datetime, **which: Any) -> UnitOfWork:
    """Limits, locked, with the leases that are meant and all those of limits with decay."""
    unit = UnitOfWork()
    await lock_limits(connection, unit, now, **which)
    return unit


@again
async def release_concurrency_slots(batcher: Batcher, given: requests.ReleaseConcurrencySlots) -> list[UUID]:
    """Give back leases; the ids of those that were there. What a state took, a state gives back: it stays."""
    async with batcher.database.write() as transaction:
        now = batcher.clock()
        unit = await _ledger(transaction.connection, now, leases=given.lease_ids)
        known = [lease for each in dict.fromkeys(given.lease_ids) if (lease := unit.leases.get(each))]
        there = [lease for lease in known if not lease.automatic]
        for lease in there:
            unit.give_back(unit.leases[lease.id], now)
        await write_limits(transaction.connection, unit, now)
    return [lease.id for lease in there]


@again
async def renew_concurrency_leases(batcher: Batcher, given: requests.RenewConcurrencyLeases) -> list[UUID]:
    """Have leases last some seconds from now; the ids of those that were there. Slots that decay do so all the same."""
    async with batcher.database.write() as transaction:
        now = batcher.clock()
        unit = await _ledger(transaction.connection, now, leases=given.lease_ids)
        there = [lease for each in dict.fromkeys(given.lease_ids) if (lease := unit.leases.get(each))]
        for lease in there:
            unit.renew(lease, now + timedelta(seconds=given.lease_seconds), now)
        await write_limits(transaction.connection, unit, now)
    return [lease.id for lease in there]


@again
async def reset_limit(batcher: Batcher, limit_id: UUID) -> bool:
    """Take back all slots of a limit, whoever holds them."""
    async with batcher.database.write() as transaction:
        connection = transaction.connection
        if not await sql.lock_limits(connection, ids=[limit_id]):
            return False
        await connection.execute(sa.delete(ConcurrencyLease).where(among(ConcurrencyLease.limit_id, [limit_id])))
        emptied = {"occupied": 0, "drained": None, "updated": batcher.clock()}
        await connection.execute(sa.update(ConcurrencyLimit).where(ConcurrencyLimit.id == limit_id).values(**emptied))
    return True

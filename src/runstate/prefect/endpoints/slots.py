"""Slots of concurrency limits: acquired with a lease, renewed, released."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import sqlalchemy as sa
from pydantic import Field

from runstate.core.commands.concurrency_limits import (
    Acquired,
    acquire_concurrency_slots,
    release_concurrency_slots,
    renew_concurrency_leases,
)
from runstate.database.bulk import table_of
from runstate.database.dialects import among
from runstate.database.queries.orchestration import all_of
from runstate.documents.access import Scope
from runstate.documents.requests import AcquireConcurrencySlots, ReleaseConcurrencySlots, RenewConcurrencyLeases
from runstate.errors import InvalidInput
from runstate.prefect.bodies import Body
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.prefect.leases import LeaseIds, leases_of
from runstate.rows import ConcurrencyLease, ConcurrencyLimit

FULL: Final = 423
GONE: Final = 410
A_DAY: Final = 86_400.0
"""Seconds for which slots are held that have no lease, and the longest lease."""
LeaseSeconds = Annotated[float, Field(gt=0, le=A_DAY)]


class Holder(Body):
    """The run that holds slots."""

    type: str
    id: UUID


class Slots(Body):
    """Slots to acquire."""

    names: Annotated[list[str], Field(max_length=100)]
    slots: Annotated[int, Field(ge=1, lt=2**31)]
    mode: Literal["concurrency", "rate_limit"] = "concurrency"


class LeasedSlots(Slots):
    """Slots to acquire for some time."""

    lease_duration: LeaseSeconds = 300.0
    holder: Holder | None = None


class Returned(Body):
    """Slots to release by the names of their limits."""

    names: Annotated[list[str], Field(max_length=100)]
    slots: Annotated[int, Field(ge=1, lt=2**31)]


class Lease(Body):
    """A lease to release."""

    lease_id: UUID


class Renewal(Body):
    """The new duration of a lease."""

    lease_duration: LeaseSeconds = 300.0


@endpoint("POST", "/v2/concurrency_limits/increment-with-lease", Scope.PROPOSE)
async def acquire(call: Call, body: LeasedSlots) -> Any:
    """Acquire slots of all named limits that exist, or of none if one is full."""
    ids = LeaseIds(call.batcher.new_id)
    holder = f"{body.holder.type}:{body.holder.id}" if body.holder else None
    acquired = await _acquired(call, body, ids, max(body.lease_duration, 1.0), holder)
    if acquired.retry_after_seconds is not None:
        return _full(acquired.retry_after_seconds)
    return {"lease_id": ids.together, "limits": await _limits(call, acquired)}


@endpoint("POST", "/v2/concurrency_limits/increment", Scope.PROPOSE)
async def take(call: Call, body: Slots) -> Any:
    """Acquire slots without a lease: those of rate limits, which nobody releases."""
    acquired = await _acquired(call, body, LeaseIds(call.batcher.new_id), A_DAY, None)
    if acquired.retry_after_seconds is not None:
        return _full(acquired.retry_after_seconds)
    return await _limits(call, acquired)


@endpoint("POST", "/v2/concurrency_limits/decrement-with-lease", Scope.PROPOSE, status=204)
async def release(call: Call, body: Lease) -> None:
    """Release the slots of a lease; an unknown one changes nothing."""
    if ids := leases_of(body.lease_id):
        await release_concurrency_slots(call.context, ReleaseConcurrencySlots(lease_ids=ids))


@endpoint("POST", "/v2/concurrency_limits/decrement", Scope.PROPOSE)
async def release_by_name(call: Call, body: Returned) -> Any:
    """Release slots that were acquired without a lease, the oldest first."""
    async with call.database.read() as connection:
        asked = (
            sa.select(ConcurrencyLease.id)
            .join(ConcurrencyLimit, ConcurrencyLimit.id == ConcurrencyLease.limit_id)
            .where(ConcurrencyLimit.name.in_(body.names), ConcurrencyLease.holder.is_(None))
            .where(ConcurrencyLease.slots == body.slots, ~ConcurrencyLease.automatic)
            .order_by(ConcurrencyLease.id)
        )
        found = (await connection.execute(asked.add_columns(ConcurrencyLease.limit_id))).all()
    # The oldest of each limit.
    ids = list({limit: lease for lease, limit in reversed(found)}.values())
    if ids:
        await release_concurrency_slots(call.context, ReleaseConcurrencySlots(lease_ids=ids))
    return []


@endpoint("POST", "/v2/concurrency_limits/leases/{lease_id}/renew", Scope.PROPOSE, status=204)
async def renew(call: Call, body: Renewal) -> Any:
    """Let a lease expire later."""
    ids = leases_of(call.id("lease_id"))
    asked = RenewConcurrencyLeases(lease_ids=ids, lease_seconds=max(body.lease_duration, 1.0)) if ids else None
    renewed = await renew_concurrency_leases(call.context, asked) if asked else []
    return None if len(renewed) == len(ids) else Reply({"detail": "The lease has expired or is unknown."}, GONE)


async def _acquired(call: Call, body: Slots, ids: LeaseIds, seconds: float, holder: str | None) -> Acquired:
    if not body.names:
        return Acquired()
    if body.mode == "rate_limit":
        await _check_decay(call, body.names)
    document = AcquireConcurrencySlots(names=body.names, slots=body.slots, holder=holder, lease_seconds=seconds)
    return await acquire_concurrency_slots(replace(call.context, new_id=ids), document)


async def _check_decay(call: Call, names: list[str]) -> None:
    """Raise InvalidInput if one of the limits is no rate limit."""
    wanted = (ConcurrencyLimit.name.in_(names), ConcurrencyLimit.deployment_id.is_(None), ConcurrencyLimit.active)
    asked = sa.select(ConcurrencyLimit.name).where(*wanted, ConcurrencyLimit.slot_decay_per_second == 0)
    async with call.database.read() as connection:
        if (name := (await connection.execute(asked)).scalar()) is not None:
            raise InvalidInput(f"The limit {name} has no decay of slots, so it is no rate limit.", ("names",))


async def _limits(call: Call, acquired: Acquired) -> list[dict[str, Any]]:
    """Return the limits of acquired slots."""
    ids = [lease.limit_id for lease in acquired.leases]
    if not ids:
        return []
    asked = sa.select(*table_of(ConcurrencyLimit).columns).where(among(ConcurrencyLimit.id, ids))
    async with call.database.read() as connection:
        found = await all_of(connection, ConcurrencyLimit, asked)
    return [{"id": each.id, "name": each.name, "limit": each.limit} for each in found]


def _full(seconds: float) -> Reply:
    """Return the answer for a full limit, with the seconds after which to ask again."""
    return Reply({"detail": "The limit has no free slot."}, FULL, {"Retry-After": f"{max(seconds, 0.1):.3f}"})

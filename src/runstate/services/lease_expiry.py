"""Slots whose lease has expired are free again."""

from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import write_limits
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.database import Database
from runstate.database.queries.due import expired_leases, limits_with_expired_leases, pages
from runstate.database.queries.orchestration import lock_limits

log = structlog.get_logger(__name__)

AT_ONCE: Final = 1_000


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Give back leases that have expired, each exactly once; how many."""
    ended = 0
    async for page in pages(batcher.database, limits_with_expired_leases(now)):
        ended += sum([await _end_leases(batcher.database, limit.id, now) for limit in page])
    return ended


async def _end_leases(database: Database, limit_id: UUID, now: datetime) -> int:
    """All of a limit; one that cannot be put right does not keep others from it."""
    ended, some = 0, AT_ONCE
    try:
        while some == AT_ONCE:
            some = await _end_some(database, limit_id, now)
            ended += some
    except DBAPIError:
        log.exception("expired leases could not be given back", limit=str(limit_id))
    return ended


async def _end_some(database: Database, limit_id: UUID, now: datetime) -> int:
    """One limit is locked, and waited for: a busy one would be passed over time after time."""
    async with database.write() as transaction:
        connection = transaction.connection
        unit = UnitOfWork()
        for limit in await lock_limits(connection, ids=[limit_id]):
            unit.add_limit(limit)
            for lease in await expired_leases(connection, limit, now, AT_ONCE):
                unit.add_lease(lease)
        expired = list(unit.leases.values())
        for lease in expired:
            if unit.limits[limit_id].slot_decay_per_second > 0:
                unit.gone_leases.add(lease.id)
            else:
                unit.give_back(lease, now)
        await write_limits(connection, unit, now)
    return len(expired)

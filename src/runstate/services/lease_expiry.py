"""Releases slots whose lease has expired."""

from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from runstate.core.batch.batcher import Batcher
from runstate.core.batch.orchestrate import write_limits
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.database import Database
from runstate.database.failures import Kind, failure_of, reason
from runstate.database.queries.due import expired_leases, limits_with_expired_leases, pages
from runstate.database.queries.expiry import BATCH_SIZE
from runstate.database.queries.orchestration import lock_limits

log = structlog.get_logger(__name__)


async def run_once(batcher: Batcher, now: datetime) -> int:
    """Release expired leases, each exactly once, and return their number."""
    ended = 0
    async for page in pages(batcher.database, limits_with_expired_leases(now)):
        ended += sum([await _end_leases(batcher.database, limit.id, now) for limit in page])
    return ended


async def _end_leases(database: Database, limit_id: UUID, now: datetime) -> int:
    """Release the expired leases of one limit. An error that others need not have is logged and keeps none of them."""
    ended, some = 0, BATCH_SIZE
    try:
        # In batches: otherwise many expired leases would hold the lock, and on SQLite all writers, for seconds.
        while some == BATCH_SIZE:
            some = await _end_some(database, limit_id, now)
            ended += some
    except DBAPIError as error:
        failure = failure_of(error)
        if failure.is_temporary and failure.kind is not Kind.CONFLICT:
            raise
        is_bug = failure.kind is Kind.BUG
        log.exception(
            "expired leases could not be released", limit=str(limit_id), reason=reason(error), exc_info=is_bug
        )
    return ended


async def _end_some(database: Database, limit_id: UUID, now: datetime) -> int:
    """Release a batch. Wait for the lock of the limit: otherwise a busy limit might always be skipped."""
    async with database.write() as transaction:
        connection = transaction.connection
        unit = UnitOfWork()
        for limit in await lock_limits(connection, ids=[limit_id]):
            unit.add_limit(limit)
            # Read again under the lock: a lease may have been renewed or released since.
            for lease in await expired_leases(connection, limit, now, BATCH_SIZE):
                unit.add_lease(lease)
        expired = list(unit.leases.values())
        for lease in expired:
            if unit.limits[limit_id].slot_decay_per_second > 0:
                # With decay, its slots are free already, so the limit does not change.
                unit.gone_leases.add(lease.id)
            else:
                unit.release(lease, now)
        await write_limits(transaction, unit, now)
    return len(expired)

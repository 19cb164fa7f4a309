"""Hands the runs of workers that are not heard of to others: ends claims whose lease has expired."""

from datetime import datetime

from runstate.core.batch.batcher import Batcher
from runstate.core.commands.claims import Expiry, expire_claims
from runstate.database.queries.claims import expired_claims
from runstate.database.queries.due import pages
from runstate.database.queries.heartbeats import MISSED, database_time
from runstate.rows import RunClaim
from runstate.services.heartbeats import Attention

EXPIRED = "The claim of the worker expired."


async def run_once(
    batcher: Batcher, now: datetime, *, attention: Attention | None = None, crash_running: bool = True
) -> int:
    """End expired claims and return their number: PENDING runs are SCHEDULED again, RUNNING runs crash.

    A claim gets a full lease after a gap between rounds in which its worker may have been unable to renew it.
    """
    if attention:
        async with batcher.database.read() as connection:
            # The clock of the database: leases are compared with it, and those of the servers may differ.
            attention.begin_round(await database_time(connection))
    ended, expiry = 0, Expiry(batcher.context, EXPIRED, crash_running)
    async for page in pages(batcher.database, expired_claims()):
        # A worker renews a claim about three times in a lease.
        lost = [row for row in page if attention is None or attention.covers(row.lease_seconds / MISSED)]
        ended += await expire_claims(batcher.context, [RunClaim.of(row._mapping) for row in lost], expiry)  # type: ignore[arg-type] # noqa: SLF001
    return ended

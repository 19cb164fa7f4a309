"""The identity of the database that holds the logs."""

from typing import cast
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.feed.log import all_logs
from runstate.rows import Installation, LogCheckpoint, LogFloor


async def identify(database: Database) -> UUID:
    """Return the id of the database, which cursors carry.

    A dump that is restored into another PostgreSQL cluster gets a new id, because the transaction ids in its logs have
    no meaning there. Its entries count as read by every reader, and older cursors are rejected.
    """
    async with database.write() as transaction:
        connection = transaction.connection
        # Locked, so that replicas that start at the same time agree on the id.
        stored = (await connection.execute(sa.select(Installation).with_for_update())).one()
        cluster = await _cluster(connection, database)
        identity: UUID = stored.id
        if stored.cluster == cluster:
            return identity
        # A new database has no cluster yet, and nothing to reset.
        if stored.cluster is not None:
            identity = await _reset(connection)
        await connection.execute(sa.update(Installation).values(id=identity, cluster=cluster))
        return identity


async def _cluster(connection: AsyncConnection, database: Database) -> str | None:
    if database.is_sqlite:
        return None
    return cast("str", await connection.scalar(sa.text("SELECT system_identifier::text FROM pg_control_system()")))


async def _reset(connection: AsyncConnection) -> UUID:
    """Remove all references to transaction ids of another cluster, and return a new id."""
    await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))  # a log can be large
    for log in all_logs():
        await connection.execute(sa.update(log.table).values(xid=None, boot=None))
    await connection.execute(sa.delete(LogCheckpoint))
    await connection.execute(sa.delete(LogFloor))
    return uuid4()

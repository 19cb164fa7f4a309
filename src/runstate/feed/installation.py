"""Which database the log is in."""

from typing import cast
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.rows import Installation, LogCheckpoint, Transition


async def identify(database: Database) -> UUID:
    """The id of the database, which its cursors carry.

    A dump that was restored into another PostgreSQL cluster becomes another database: the transaction ids in its log
    mean nothing there. What the log holds then counts as seen by everyone, and cursors from before are refused.
    """
    async with database.write() as transaction:
        connection = transaction.connection
        kept = (await connection.execute(sa.select(Installation).with_for_update())).one()
        cluster = await _cluster(connection, database)
        identity: UUID = kept.id
        if kept.cluster == cluster:
            return identity
        if kept.cluster is not None:
            identity = await _forget(connection)
        await connection.execute(sa.update(Installation).values(id=identity, cluster=cluster))
        return identity


async def _cluster(connection: AsyncConnection, database: Database) -> str | None:
    if database.is_sqlite:
        return None
    return cast("str", await connection.scalar(sa.text("SELECT system_identifier::text FROM pg_control_system()")))


async def _forget(connection: AsyncConnection) -> UUID:
    await connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    await connection.execute(sa.update(Transition).values(xid=None, boot=None))
    await connection.execute(sa.delete(LogCheckpoint))
    await connection.execute(sa.update(Installation).values(floor=None))
    return uuid4()

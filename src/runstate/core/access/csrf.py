"""CSRF tokens: pages of other sites can send requests, but they cannot read the token that a mutation requires."""

import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from runstate.core.access.keys import Draw
from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import insert_or_replace
from runstate.database.queries.orchestration import all_of
from runstate.rows import CsrfToken

GOOD_FOR: Final = timedelta(hours=1)
"""Lifetime of a token."""
TOKEN_BYTES: Final = 32


class CsrfTokens:
    """The tokens of clients. Each client has at most one."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], draw: Draw, new_id: Callable[[], UUID]
    ) -> None:
        self.database = database
        self.clock = clock
        self.draw = draw
        self.new_id = new_id

    async def give(self, client: str) -> CsrfToken:
        """Create a token for a client, or replace its token. Delete expired tokens."""
        now = self.clock()
        columns: dict[str, Any] = {
            "id": self.new_id(),
            "created": now,
            "updated": now,
            "client": client,
            "token": self.draw(TOKEN_BYTES).hex(),
            "expiration": now + GOOD_FOR,
        }
        table = table_of(CsrfToken)
        async with self.database.write() as transaction:
            connection = transaction.connection
            # No service deletes tokens, so each creation deletes the expired ones.
            await connection.execute(sa.delete(table).where(table.c.expiration <= now, table.c.client != client))
            # One statement, so that two requests of a client at the same time leave one token.
            replace = insert_or_replace(
                connection.dialect.name, table, ["client"], ["updated", "token", "expiration"]
            ).returning(*table.columns)
            return CsrfToken.of(dict((await connection.execute(replace, columns)).mappings().one()))

    async def of(self, client: str) -> CsrfToken | None:
        """Return the valid token of a client, or None."""
        if "\0" in client:  # PostgreSQL rejects text with a NUL
            return None
        table = table_of(CsrfToken)
        asked = sa.select(*table.columns).where(table.c.client == client, table.c.expiration > self.clock())
        # Keys and tokens have connections of their own, so slow queries cannot block authentication.
        async with self.database.keys.read() as connection:
            return next(iter(await all_of(connection, CsrfToken, asked)), None)

    async def is_token_of(self, client: str, token: str) -> bool:
        """Return whether a token is the valid token of a client."""
        known = await self.of(client)
        # compare_digest rejects strings that are not ASCII, so it compares bytes.
        return known is not None and hmac.compare_digest(known.token.encode(), token.encode())

"""API keys: creation, lookup, listing and revocation."""

import hmac
import re
from base64 import b32encode
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import sqlalchemy as sa

from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.database.dialects import among, insert_or_skip
from runstate.database.queries.orchestration import all_of
from runstate.documents.access import ANONYMOUS, Scope, is_service
from runstate.errors import ConfigurationError
from runstate.rows import ApiKey

Draw = Callable[[int], bytes]
"""A function that returns a number of random bytes, unpredictable for attackers."""

PREFIX_BYTES: Final = 5
SECRET_BYTES: Final = 30
# Scanners for secrets can find keys by this format.
WELL_FORMED: Final = re.compile(r"((rs_[a-z2-7]{8})_[a-z2-7]{48})([a-z2-7]{7})")
"""The format of a key: prefix, secret, and a checksum that detects mistyped keys without a lookup."""
NAME: Final = re.compile(r"[\w.:@/+-]{1,100}")
RESERVED: Final = frozenset({ANONYMOUS, "runstate"})
"""Names that no key can have."""


def mint(draw: Draw) -> str:
    """Return a new key."""
    text = f"rs_{_written(draw(PREFIX_BYTES))}_{_written(draw(SECRET_BYTES))}"
    return text + checksum(text)


def prefix_of(key: str) -> str | None:
    """Return the prefix by which a key is looked up; None if the key is malformed."""
    found = WELL_FORMED.fullmatch(key)
    return found[2] if found and hmac.compare_digest(checksum(found[1]), found[3]) else None


def digest(key: str) -> str:
    """Return the stored digest of a key. A key has 240 random bits, so a slow hash would add no protection."""
    return sha256(key.encode()).hexdigest()


def checksum(text: str) -> str:
    """Return the checksum at the end of a key."""
    return _written(crc32(text.encode()).to_bytes(4))


def _written(octets: bytes) -> str:
    return b32encode(octets).decode().rstrip("=").lower()


def check_name(name: str) -> str:
    """Return the name of a key or user. Raise ConfigurationError if it is malformed or reserved."""
    if not NAME.fullmatch(name) or name in RESERVED or is_service(name):
        names = " and ".join(sorted(RESERVED))
        raise ConfigurationError(
            f"`{name}` is not a valid name: use 1 to 100 letters, digits or any of _.:@/+-; {names} are reserved."
        )
    return name


async def create(
    database: Database,
    now: datetime,
    key: str,
    *,
    id: UUID,
    name: str,
    scopes: Iterable[Scope],
    expires: datetime | None = None,
) -> ApiKey:
    """Store a key. Raise ConfigurationError if another key, possibly a revoked one, has the name."""
    columns: dict[str, Any] = {
        "id": id,
        "created": now,
        "updated": now,
        "name": check_name(name),
        "prefix": prefix_of(key),
        "digest": digest(key),
        "scopes": sorted(set(scopes), key=list(Scope).index),
        "expires": expires,
        "revoked": None,
        "used": None,
    }
    async with database.write() as transaction:
        # A name is used once, even after a revocation: it is the actor of the states that were proposed with the key.
        insert = insert_or_skip(transaction.connection.dialect.name, table_of(ApiKey))
        if not (await transaction.connection.execute(insert, columns)).rowcount:
            raise ConfigurationError(
                f"The name `{name}` belongs to another key, possibly a revoked one. Choose a different name."
            )
    return ApiKey.of(columns)


async def every_key(database: Database) -> list[ApiKey]:
    """Return all keys, including revoked and expired ones; oldest first."""
    async with database.read() as connection:
        # Ids are ordered by time (UUIDv7).
        return await all_of(connection, ApiKey, sa.select(*table_of(ApiKey).columns).order_by(ApiKey.id))


async def revoke(database: Database, now: datetime, name: str) -> ApiKey | None:
    """Revoke a key and return it; None if the name is unknown. Servers then close its open sockets and streams."""
    table = table_of(ApiKey)
    # A second revocation keeps the time of the first one.
    since = sa.func.coalesce(table.c.revoked, sa.literal(now, table.c.revoked.type))
    update = sa.update(table).where(table.c.name == name).values(revoked=since, updated=now).returning(*table.columns)
    async with database.write() as transaction:
        found = (await transaction.connection.execute(update)).mappings().first()
    return None if found is None else ApiKey.of(dict(found))


async def find(database: Database, now: datetime, prefix: str) -> ApiKey | None:
    """Return the valid key with a prefix, or None."""
    asked = sa.select(*table_of(ApiKey).columns).where(ApiKey.prefix == prefix, _is_valid(now))
    async with database.read() as connection:
        return next(iter(await all_of(connection, ApiKey, asked)), None)


async def still_good(database: Database, now: datetime, ids: Iterable[UUID]) -> frozenset[UUID]:
    """Return the ids of the keys that are valid."""
    async with database.read() as connection:
        found = await connection.execute(sa.select(ApiKey.id).where(among(ApiKey.id, ids), _is_valid(now)))
        return frozenset(found.scalars())


async def note_use(database: Database, now: datetime, ids: Iterable[UUID]) -> None:
    """Write the time of the last use of keys."""
    table = table_of(ApiKey)
    async with database.write() as transaction:
        await transaction.connection.execute(sa.update(table).where(among(table.c.id, ids)).values(used=now))


def _is_valid(now: datetime) -> sa.ColumnElement[bool]:
    return ApiKey.revoked.is_(None) & (ApiKey.expires.is_(None) | (ApiKey.expires > now))

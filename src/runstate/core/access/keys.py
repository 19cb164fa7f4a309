"""Keys that let clients in: made, listed and revoked, and recognised when they come back."""

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
from runstate.documents.access import ANONYMOUS, SERVER, Scope
from runstate.errors import ConfigurationError
from runstate.rows import ApiKey

Draw = Callable[[int], bytes]
"""So many random bytes that nobody can guess."""

PREFIX_BYTES: Final = 5
SECRET_BYTES: Final = 30
WELL_FORMED: Final = re.compile(r"((rs_[a-z2-7]{8})_[a-z2-7]{48})([a-z2-7]{7})")
"""How a key looks: what it is found by, the secret, and a checksum that tells a mistyped key without a look at any."""
NAME: Final = re.compile(r"[\w.:@/+-]{1,100}")
RESERVED: Final = frozenset({ANONYMOUS, SERVER})
"""Actors that are no keys."""


def mint(draw: Draw) -> str:
    """A new key."""
    text = f"rs_{_written(draw(PREFIX_BYTES))}_{_written(draw(SECRET_BYTES))}"
    return text + checksum(text)


def prefix_of(key: str) -> str | None:
    """What a key is found by; null: it is none."""
    found = WELL_FORMED.fullmatch(key)
    return found[2] if found and hmac.compare_digest(checksum(found[1]), found[3]) else None


def digest(key: str) -> str:
    """What is kept of a key. It has 240 random bits, so that a slow hash would protect nothing more."""
    return sha256(key.encode()).hexdigest()


def checksum(text: str) -> str:
    """How a key ends that begins like this."""
    return _written(crc32(text.encode()).to_bytes(4))


def _written(octets: bytes) -> str:
    return b32encode(octets).decode().rstrip("=").lower()


def check_name(name: str) -> str:
    """The name, if a key or a user may have it."""
    if not NAME.fullmatch(name) or name in RESERVED:
        names = " and ".join(sorted(RESERVED))
        raise ConfigurationError(
            f"A name has 1 to 100 letters, digits or any of _.:@/+- and {names} are taken: `{name}`."
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
    """Let a key in from now on. Misconfigured: another one has, or had, the name."""
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
        insert = insert_or_skip(transaction.connection.dialect.name, table_of(ApiKey))
        if not (await transaction.connection.execute(insert, columns)).rowcount:
            raise ConfigurationError(f"There is a key `{name}`, or there was: a name stands for one key only.")
    return ApiKey.of(columns)


async def every_key(database: Database) -> list[ApiKey]:
    """All keys, also those that let nobody in any more; oldest first."""
    async with database.read() as connection:
        return await all_of(connection, ApiKey, sa.select(*table_of(ApiKey).columns).order_by(ApiKey.id))


async def revoke(database: Database, now: datetime, name: str) -> ApiKey | None:
    """Let a key in no more, and end what it has open; null: there is none of this name."""
    table = table_of(ApiKey)
    since = sa.func.coalesce(table.c.revoked, sa.literal(now, table.c.revoked.type))
    update = sa.update(table).where(table.c.name == name).values(revoked=since, updated=now).returning(*table.columns)
    async with database.write() as transaction:
        found = (await transaction.connection.execute(update)).mappings().first()
    return None if found is None else ApiKey.of(dict(found))


async def find(database: Database, now: datetime, prefix: str) -> ApiKey | None:
    """The key that begins like this, if it lets in."""
    asked = sa.select(*table_of(ApiKey).columns).where(ApiKey.prefix == prefix, _lets_in(now))
    async with database.read() as connection:
        return next(iter(await all_of(connection, ApiKey, asked)), None)


async def still_good(database: Database, now: datetime, ids: Iterable[UUID]) -> frozenset[UUID]:
    """Which of these keys let in."""
    async with database.read() as connection:
        found = await connection.execute(sa.select(ApiKey.id).where(among(ApiKey.id, ids), _lets_in(now)))
        return frozenset(found.scalars())


async def note_use(database: Database, now: datetime, ids: Iterable[UUID]) -> None:
    """Keep that these keys were used."""
    table = table_of(ApiKey)
    async with database.write() as transaction:
        await transaction.connection.execute(sa.update(table).where(among(table.c.id, ids)).values(used=now))


def _lets_in(now: datetime) -> sa.ColumnElement[bool]:
    return ApiKey.revoked.is_(None) & (ApiKey.expires.is_(None) | (ApiKey.expires > now))

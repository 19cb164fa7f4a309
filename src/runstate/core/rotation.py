"""Rotation of keys: encrypts all secrets with the newest key."""

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from runstate.core.commands.block_documents import about
from runstate.core.keyring import ID_BYTES, Keyring, key_of
from runstate.database import Database
from runstate.errors import NoSecretKey
from runstate.rows import BlockDocument

PAGE: Final = 200
FIRST: Final = UUID(int=0)


async def rotate(database: Database, keyring: Keyring) -> int:
    """Encrypt all secrets that have another known key with the newest key, and return their number.

    Each page of secrets has its own transaction, so the rotation can be stopped and repeated while servers are running.
    """
    if keyring.newest is None:
        raise NoSecretKey
    done, after = 0, FIRST
    while True:
        async with database.write() as transaction:
            found = list(await transaction.connection.execute(_page(keyring.newest, after)))
            # A secret whose key is lost must not keep the others from their new key.
            for key, text in (each for each in found if key_of(each.ciphertext) in keyring.keys):
                new = keyring.encrypt(keyring.decrypt(text, about(key)), about(key))
                # The comparison keeps what another transaction has written meanwhile.
                same = sa.and_(BlockDocument.id == key, BlockDocument.ciphertext == text)
                changed = await transaction.connection.execute(
                    sa.update(BlockDocument).where(same).values(ciphertext=new)
                )
                done += changed.rowcount
        if not found:
            return done
        after = found[-1][0]


def _page(newest: str, after: UUID) -> sa.Select[Any]:
    others = sa.not_(BlockDocument.ciphertext.startswith(newest))
    columns: list[Any] = [BlockDocument.id, BlockDocument.ciphertext]
    return sa.select(*columns).where(others, BlockDocument.id > after).order_by(BlockDocument.id).limit(PAGE)


async def used_keys(database: Database) -> dict[str, int]:
    """Return the number of secrets of each key, by the id of the key."""
    key = sa.func.substr(BlockDocument.ciphertext, 1, 2 * ID_BYTES)
    counts = sa.select(key, sa.func.count()).group_by(key).order_by(key)
    async with database.read() as connection:
        return {text: number for text, number in await connection.execute(counts)}  # noqa: C416 rows are no pairs

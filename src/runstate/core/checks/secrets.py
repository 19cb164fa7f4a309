"""Verifies that all secrets can be decrypted."""

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag

from runstate.core.checks.verify import finding_of
from runstate.core.commands.block_documents import about
from runstate.core.keyring import Keyring
from runstate.database import Database
from runstate.errors import NoSecretKey
from runstate.rows import BlockDocument

PAGE: Final = 200
NO_KEY: Final = "Block documents whose key is not configured"
DAMAGED: Final = "Block documents that cannot be decrypted"


async def verify_secrets(database: Database, keyring: Keyring) -> list[str]:
    """Return a line for the documents without a key, and one for those that are damaged, if there are any."""
    found: dict[str, list[UUID]] = {NO_KEY: [], DAMAGED: []}
    after = UUID(int=0)
    while page := await _page(database, after):
        for key, text in page:
            if failure := _failure(keyring, key, text):
                found[failure].append(key)
        after = page[-1][0]
    return [finding_of(name, len(ids), list(map(str, ids))) for name, ids in found.items() if ids]


async def _page(database: Database, after: UUID) -> list[Any]:
    columns: list[Any] = [BlockDocument.id, BlockDocument.ciphertext]
    page = sa.select(*columns).where(BlockDocument.id > after).order_by(BlockDocument.id).limit(PAGE)
    async with database.read() as connection:
        return list(await connection.execute(page))


def _failure(keyring: Keyring, key: UUID, text: str) -> str | None:
    try:
        keyring.decrypt(text, about(key))
    except NoSecretKey:
        return NO_KEY
    except (InvalidTag, ValueError):
        return DAMAGED
    return None

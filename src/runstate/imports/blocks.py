"""Decryption of the reference's block documents."""

from __future__ import annotations

from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from runstate.documents.exact_json import loads
from runstate.imports.table import LeftOut


def decrypted(fernet: Fernet | None, stored: Any) -> Any:
    """Return the data of a block document without nested ones. Raise LeftOut if it cannot be decrypted."""
    if not isinstance(stored, str):
        return {}
    if fernet is None:
        raise LeftOut("the database has no key of its blocks: give it with --encryption-key")
    try:
        data = loads(fernet.decrypt(stored.encode()))
    except (InvalidToken, ValueError):
        raise LeftOut("its data cannot be decrypted with the key: give the right one with --encryption-key") from None
    if not isinstance(data, dict):
        raise LeftOut("its data is no object")
    return data

"""Verbs that write on their own, without the batcher, and may lose a race for locks."""

import functools
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

P = ParamSpec("P")
T = TypeVar("T")

TRIES: Final = 5
ROLLED_BACK: Final = frozenset({"40001", "40P01"})
"""SQLSTATE of what PostgreSQL undid so that others could go on: serialization failure, deadlock."""


def again(verb: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Do it again when the database has undone it so that others could go on."""

    @functools.wraps(verb)
    async def do(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return await verb(*args, **kwargs)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in ROLLED_BACK:
                    raise
        return await verb(*args, **kwargs)

    return do

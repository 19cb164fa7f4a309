"""The contract of commands: arguments are a context and a document, the result is the row as written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError

from runstate.core.commands.conflicts import problem_of
from runstate.core.context import CommandContext
from runstate.database.failures import Kind, failure_of, reason
from runstate.feed.log import TRANSITIONS
from runstate.rows import Row

D = TypeVar("D")
P = ParamSpec("P")
T = TypeVar("T")
Verb = Callable[Concatenate[CommandContext, D, P], Coroutine[Any, Any, T]]

TRIES: Final = 5

log = structlog.get_logger(__name__)


def command(row: type[Row], *, notify: str | None = TRANSITIONS.channel) -> Callable[[Verb[D, P, T]], Verb[D, P, T]]:
    """Return a decorator that makes a command of a function that writes rows of one table.

    The command is retried after serialization failures and deadlocks. Violated constraints become problems: NameTaken
    for a unique key, NotFound for a foreign key of the document, InUse for a row that others refer to. Subscribers of
    a channel are notified afterwards. `notify=None` is for commands that notify by themselves, or change nothing shown.
    """

    def decorate(verb: Verb[D, P, T]) -> Verb[D, P, T]:
        async def run(context: CommandContext, document: D, *args: P.args, **kwargs: P.kwargs) -> T:
            result = await repeat(context, document, *args, **kwargs)
            if notify:
                context.database.notify(notify)
            return result

        async def repeat(context: CommandContext, document: D, *args: P.args, **kwargs: P.kwargs) -> T:
            for _ in range(TRIES - 1):
                try:
                    return await verb(context, document, *args, **kwargs)
                except DBAPIError as error:
                    await _check(context, row, document, error)
            return await verb(context, document, *args, **kwargs)

        return cast("Verb[D, P, T]", functools.wraps(verb)(run))

    return decorate


async def _check(context: CommandContext, row: type[Row], document: Any, error: DBAPIError) -> None:
    """Return if a retry may succeed. Otherwise raise the problem or the error."""
    if isinstance(error, IntegrityError):
        # The failed transaction is rolled back, so the conflicting row is looked up in another one.
        problem = await problem_of(context.database, row, document, error)
        if problem is not None:
            raise problem from error
    # After any other error, such as a lost connection, the transaction may have been committed.
    elif failure_of(error).kind is not Kind.CONFLICT:
        raise error
    log.info("a command is repeated", table=row.__tablename__, reason=reason(error))

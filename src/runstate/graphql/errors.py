"""Top-level errors: their codes, what clients see of them and what is logged."""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from runstate.database.failures import as_answer
from runstate.errors import BadUserInput, RunstateError, Timeout

LONGEST_MESSAGE: Final = 600
"""The most characters of a message. The library quotes names and values of documents, however long they are."""

log = structlog.get_logger(__name__)


class Code(Enum):
    """What clients find under `extensions.code`: all there is."""

    BAD_REQUEST = "BAD_REQUEST"
    """The HTTP request is none that GraphQL can be asked with."""
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED"
    """The request has the digest of a document instead of the document; send the document."""
    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    """The document is not GraphQL."""
    BAD_USER_INPUT = "BAD_USER_INPUT"
    """The document or its variables do not fit the schema, or a list or filter is larger than allowed."""
    INVALID_INPUT = "INVALID_INPUT"
    """A cursor is malformed or belongs to another order; an input contradicts itself."""
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    """The document or its variables ask for more than is allowed: `limit` says of what, `allowed` how much there may be
    and `found` how much there is."""
    NOT_FOUND = "NOT_FOUND"
    """Nothing has this id."""
    NAME_TAKEN = "NAME_TAKEN"
    """Another object has this name already."""
    IN_USE = "IN_USE"
    """Other objects refer to the object that was to be deleted."""
    VERSION_CONFLICT = "VERSION_CONFLICT"
    """The run has moved on."""
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    """The idempotency key was used for another proposal."""
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    """The log is no longer kept as far back as the cursor; `extensions.oldest` is a cursor that is."""
    SLOW_CONSUMER = "SLOW_CONSUMER"
    """The subscriber stayed too far behind; subscribe again after `extensions.cursor`."""
    RESTARTING = "RESTARTING"
    """The server is going away; subscribe again."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """There is no key, or one that is unknown, revoked or expired."""
    FORBIDDEN = "FORBIDDEN"
    """The key does not allow it, or a page of another site asks."""
    OVERLOADED = "OVERLOADED"
    """Too much is under way; try again."""
    UNAVAILABLE = "UNAVAILABLE"
    """The database cannot be used now, for the reason in the message; nothing was written."""
    TIMEOUT = "TIMEOUT"
    """It took too long. What was to be written may have been."""
    INTERNAL = "INTERNAL"
    """A bug; the request id leads to it in the server's log."""


KNOWN: Final[dict[type[BaseException], Callable[[], RunstateError]]] = {
    RecursionError: lambda: BadUserInput("It is nested too deeply."),
    TimeoutError: Timeout,
    CannotGetOperationTypeError: lambda: BadUserInput("The document has no operation of this name."),
    InvalidOperationTypeError: lambda: BadUserInput("An operation of this type is not asked in this way."),
    MissingQueryError: lambda: BadUserInput("There is no document."),
}
"""What exceptions of others mean to a client."""


def original_exception(error: GraphQLError) -> BaseException | None:
    """What was raised, below what GraphQL wraps it in; None: GraphQL itself refused something."""
    found = error.original_error
    while isinstance(found, GraphQLError):
        found = found.original_error
    return found


def as_known_error(raised: BaseException) -> RunstateError | None:
    """What a client may know of an exception; None: it is a bug."""
    if isinstance(raised, RunstateError):
        return raised if raised.code != Code.INTERNAL.value else None
    return as_answer(raised) or next((make() for kind, make in KNOWN.items() if isinstance(raised, kind)), None)


def extensions(raised: RunstateError) -> dict[str, Any]:
    """Return the code of an exception and its attributes."""
    return {"code": raised.code, **{_camel(name): value for name, value in vars(raised).items() if value}}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def to_client_error(error: GraphQLError, request_id: str) -> GraphQLError:
    """An error as a client sees it: with a code, and without anything that only the server should know."""
    raised = original_exception(error)
    if isinstance(error, GraphQLSyntaxError):
        message, more = error.message, {"code": Code.GRAPHQL_PARSE_FAILED.value}
    elif raised is None:
        message, more = error.message, {"code": Code.BAD_USER_INPUT.value}
    elif found := as_known_error(raised):
        message, more = found.message, extensions(found)
    else:
        message, more = "Internal error", {"code": Code.INTERNAL.value}
    if request_id:
        more["requestId"] = request_id
    return GraphQLError(short(message), error.nodes, error.source, error.positions, error.path, extensions=more)


def short(message: str) -> str:
    """Return a message without the middle of what it quotes, if that is long."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} … ({len(message) - 2 * half} characters) … {message[-half:]}"


def log_errors(errors: Iterable[GraphQLError], request_id: str) -> None:
    """Log each error: a bug with its traceback, what a client got wrong only for those who look closely."""
    for error in errors:
        raised = original_exception(error)
        where = {"request_id": request_id, "path": error.path, "message": short(error.message)}
        if raised is None or as_known_error(raised):
            log.debug("operation_refused", **where)
        else:
            log.error("operation_failed", exc_info=raised, **where)

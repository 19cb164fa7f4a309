"""Top-level errors: their codes, their form for clients, and their log lines."""

import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from runstate.database.failures import as_answer
from runstate.errors import BadUserInput, RunstateError, Timeout

TOO_MANY_DIGITS: Final = "integer string conversion"
"""Part of the message of Python's ValueError for a number with more than 4,300 digits."""
LONGEST_MESSAGE: Final = 600
"""Largest number of characters in a message: graphql-core quotes names and values of documents of any length."""
QUOTED: Final = re.compile(r", found: .*|(?<=value): .*", re.DOTALL)
"""The value that graphql-core quotes at the end of a message. It can contain a secret."""
QUOTED_INPUT: Final = re.compile(r", found: .*|(?<=value): [\[{].*", re.DOTALL)
"""The same, except scalars, which help clients to find their mistake."""

log = structlog.get_logger(__name__)


class Code(Enum):
    """Values of `extensions.code`."""

    BAD_REQUEST = "BAD_REQUEST"
    """The HTTP request or WebSocket message is not a valid GraphQL request."""
    PERSISTED_QUERY_NOT_SUPPORTED = "PERSISTED_QUERY_NOT_SUPPORTED"
    """The request has the digest of a document instead of the document; send the document."""
    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    """The document has a syntax error."""
    BAD_USER_INPUT = "BAD_USER_INPUT"
    """The document or its variables do not match the schema, or a list or filter is too large."""
    INVALID_INPUT = "INVALID_INPUT"
    """A cursor is malformed or belongs to another order; an input contradicts itself."""
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    """The operation exceeds a limit: `limit` names it, `allowed` is its value, `found` the value of the operation."""
    NOT_FOUND = "NOT_FOUND"
    """No object has this id."""
    NAME_TAKEN = "NAME_TAKEN"
    """Another object has this name already."""
    IN_USE = "IN_USE"
    """Other objects refer to the object that was to be deleted."""
    VERSION_CONFLICT = "VERSION_CONFLICT"
    """The run has a later version than expected."""
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    """The idempotency key was used for a different proposal."""
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    """The log no longer goes back to the cursor; `extensions.oldest` is the oldest valid cursor."""
    SLOW_CONSUMER = "SLOW_CONSUMER"
    """The subscriber stayed too far behind; subscribe again after `extensions.cursor`."""
    NO_SECRET_KEY = "NO_SECRET_KEY"  # noqa: S105 not a secret
    """The server has no key for the secrets of a block."""
    RESTARTING = "RESTARTING"
    """The server is stopping; subscribe again."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """The key is missing, unknown, revoked or expired."""
    FORBIDDEN = "FORBIDDEN"
    """The key lacks the scope, or the request comes from a page of another site."""
    OVERLOADED = "OVERLOADED"
    """Too many operations are in flight, or too many proposals wait; retry."""
    UNAVAILABLE = "UNAVAILABLE"
    """The database cannot be used now, for the reason in the message; nothing was written."""
    TIMEOUT = "TIMEOUT"
    """The operation timed out. The write may or may not have been applied."""
    INTERNAL = "INTERNAL"
    """A bug; the server's log has the details under the id of the request."""


KNOWN: Final[dict[type[BaseException], Callable[[], RunstateError]]] = {
    RecursionError: lambda: BadUserInput("The document or a value in the variables is nested too deeply."),
    TimeoutError: Timeout,
    CannotGetOperationTypeError: lambda: BadUserInput("The document has no operation with this name."),
    InvalidOperationTypeError: lambda: BadUserInput("The HTTP method does not allow operations of this type."),
    MissingQueryError: lambda: BadUserInput("`query` is missing or empty."),
}
"""Errors that clients see instead of exceptions of libraries."""


def original_exception(error: GraphQLError) -> BaseException | None:
    """Return the exception behind a GraphQL error; None if graphql-core itself found the error."""
    # graphql-core can wrap an error that is a GraphQLError already.
    found = error.original_error
    while isinstance(found, GraphQLError):
        found = found.original_error
    return found


def as_known_error(raised: BaseException) -> RunstateError | None:
    """Return the error that a client sees instead of an exception; None if the exception is a bug."""
    if isinstance(raised, RunstateError):
        # An error without a code of its own is a bug, too.
        return raised if raised.code != Code.INTERNAL.value else None
    if isinstance(raised, ValueError) and TOO_MANY_DIGITS in str(raised):
        return BadUserInput("A number in the document has too many digits.")
    return as_answer(raised) or next((make() for kind, make in KNOWN.items() if isinstance(raised, kind)), None)


def extensions(raised: RunstateError) -> dict[str, Any]:
    """Return the code of an exception and its attributes."""
    return {"code": raised.code, **{_camel(name): value for name, value in vars(raised).items() if value}}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def to_client_error(error: GraphQLError, request_id: str) -> GraphQLError:
    """Return an error as a client sees it: with a code, and without details of the server."""
    raised = original_exception(error)
    if isinstance(error, GraphQLSyntaxError):
        message, more = error.message, {"code": Code.GRAPHQL_PARSE_FAILED.value}
    elif raised is None:
        message, more = QUOTED_INPUT.sub(".", error.message), {"code": Code.BAD_USER_INPUT.value}
    elif found := as_known_error(raised):
        message, more = found.message, extensions(found)
    else:
        # The message of a bug can contain SQL or data, so the client only gets the id for the log.
        message, more = "Internal error", {"code": Code.INTERNAL.value}
    if request_id:
        more["requestId"] = request_id
    return GraphQLError(short(message), error.nodes, error.source, error.positions, error.path, extensions=more)


def short(message: str) -> str:
    """Return a message without its middle if it is too long."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} … ({len(message) - 2 * half} characters) … {message[-half:]}"


def log_errors(errors: Iterable[GraphQLError], request_id: str) -> None:
    """Log each error: a bug with its traceback, a mistake of a client at level debug."""
    for error in errors:
        raised = original_exception(error)
        message = QUOTED.sub(".", error.message) if raised is None else error.message
        where = {"request_id": request_id, "path": error.path, "message": short(message)}
        if raised is None or as_known_error(raised):
            log.debug("operation_refused", **where)
        else:
            log.error("operation_failed", exc_info=raised, **where)

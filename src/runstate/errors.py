"""Errors that clients and operators see. The docstring of a class is its default message."""

from collections.abc import Sequence
from typing import NewType
from uuid import UUID

Id = NewType("Id", str)
"""An id as a client sent it: possibly malformed."""


class RunstateError(Exception):
    """The operation failed."""

    code = "INTERNAL"
    """The value of `extensions.code` in GraphQL errors."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """Description of the error for people."""
        return str(self)


class Problem(RunstateError):
    """An error in the input that a mutation returns as data.

    GraphQL derives an object type, a member of `ProblemCode` and the details of errors from each subclass: annotated
    attributes become fields, and the text below an attribute describes it.
    """


class InvalidInput(Problem):
    """The input contradicts itself or exceeds a limit."""

    code = "INVALID_INPUT"
    path: tuple[str, ...]
    """Path of the invalid value in the input, outermost name first; empty for the input as a whole."""

    def __init__(self, message: str | None = None, path: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)

    def prefixed(self, *prefix: str) -> "InvalidInput":
        """Return the same problem with a longer path."""
        return InvalidInput(self.message, (*prefix, *self.path))


class NotFound(Problem):
    """No object has an id or name that the input refers to."""

    code = "NOT_FOUND"
    missing_id: Id | None
    """The unknown id; null if the object was referred to by name."""

    def __init__(self, missing: UUID | str | None = None, message: str | None = None) -> None:
        super().__init__(message)
        self.missing_id = None if missing is None else Id(str(missing))


class NameTaken(Problem):
    """Another object has this name already."""

    code = "NAME_TAKEN"
    id: Id
    """Id of the object that has the name."""
    path: tuple[str, ...]
    """Path of the name in the input."""

    def __init__(self, existing: UUID, path: Sequence[str], message: str | None = None) -> None:
        super().__init__(message)
        self.id, self.path = Id(str(existing)), tuple(path)


class InUse(Problem):
    """Other objects refer to the object that was to be deleted."""

    code = "IN_USE"
    used_by: list[Id]
    """Ids of the objects that refer to it, at most 100."""

    def __init__(self, used_by: Sequence[UUID]) -> None:
        super().__init__()
        self.used_by = [Id(str(each)) for each in used_by]


class VersionConflict(Problem):
    """The run has a later version than expected."""

    code = "VERSION_CONFLICT"
    current_version: int
    """Current version of the run."""

    def __init__(self, current_version: int) -> None:
        super().__init__(f"The run is at version {current_version}.")
        self.current_version = current_version


class IdempotencyConflict(Problem):
    """The idempotency key was used for a different proposal to this run."""

    code = "IDEMPOTENCY_CONFLICT"


class BadRequest(RunstateError):
    """The request is malformed."""

    code = "BAD_REQUEST"


class BadUserInput(RunstateError):
    """An argument or variable does not match the schema."""

    code = "BAD_USER_INPUT"


class LimitExceeded(RunstateError):
    """The operation exceeds a limit."""

    code = "LIMIT_EXCEEDED"

    def __init__(self, limit: str, allowed: int, found: int | None = None) -> None:
        more = "" if found is None else f", not {found}"
        super().__init__(f"{LIMIT_MESSAGES[limit]}: at most {allowed}{more}.")
        self.limit = limit
        self.allowed = allowed
        self.found = found


LIMIT_MESSAGES = {
    "characters": "The document is too long in characters",
    "tokens": "The document is too long in tokens",
    "depth": "Fields are nested too deeply",
    "aliases": "The document has too many aliases",
    "rootFields": "An operation has too many root fields",
    "directives": "The document has too many directives",
    "listItems": "A list is too long",
    "cost": "The answer could hold too many objects",
    "errors": "Too many fields have failed",
    "resolvers": "Too many fields have to be executed one by one",
    "introspection": "The schema is selected too often",
    "bytes": "The answer, or what is read for it, is too large in bytes",
    "quantiles": "A distribution has too many quantiles",
    "pageSize": "A page is too large",
    "blocks": "A block document contains too many others",
}
"""Messages by the name of the limit."""


class CursorExpired(RunstateError):
    """The log is no longer kept as far back as the cursor."""

    code = "CURSOR_EXPIRED"

    def __init__(self, oldest: str) -> None:
        super().__init__()
        self.oldest = oldest
        """Cursor of the oldest position that the log still covers."""


class Unauthenticated(RunstateError):
    """Authentication is required: send an API key that is neither revoked nor expired."""

    code = "UNAUTHENTICATED"


class Forbidden(RunstateError):
    """The operation is not permitted."""

    code = "FORBIDDEN"


class Overloaded(RunstateError):
    """Too many requests are waiting; retry later."""

    code = "OVERLOADED"


class Unavailable(RunstateError):
    """The database cannot be reached; nothing was written."""

    code = "UNAVAILABLE"


class DatabaseMoved(Unavailable):
    """The database file was deleted or replaced while it was in use; nothing was written. Restart the server."""


class Timeout(RunstateError):
    """The operation timed out. Its writes may or may not have been committed."""

    code = "TIMEOUT"


class NoSecretKey(RunstateError):
    """The server has no key for this secret: set RUNSTATE_SECRET_KEYS_FILE or RUNSTATE_SECRET_KEYS."""

    code = "NO_SECRET_KEY"


class UnknownOutcome(Timeout):
    """The connection to the database was lost during COMMIT. What was to be written may have been."""


class SlowConsumer(RunstateError):
    """The subscriber stayed too far behind; subscribe again after the cursor."""

    code = "SLOW_CONSUMER"

    def __init__(self, cursor: str) -> None:
        super().__init__()
        self.cursor = cursor


class ServerRestarting(RunstateError):
    """The server is shutting down; subscribe again after the cursor."""

    code = "RESTARTING"

    def __init__(self, cursor: str) -> None:
        super().__init__()
        self.cursor = cursor


class ConfigurationError(RunstateError):
    """The configuration is invalid."""

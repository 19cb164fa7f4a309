"""Every exception that callers meet. The docstring is the message, unless one is given."""

from uuid import UUID


class RunstateError(Exception):
    """Something went wrong."""

    code = "INTERNAL"
    """What clients find under `extensions.code`."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())

    @property
    def message(self) -> str:
        """What went wrong, for people."""
        return str(self)


class BadUserInput(RunstateError):
    """An argument is not what the schema asks for."""

    code = "BAD_USER_INPUT"


class LimitExceeded(RunstateError):
    """More is asked for than is allowed."""

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
}
"""What is limited in what clients ask for."""


class InvalidInput(RunstateError):
    """The input contradicts itself or a limit."""

    code = "INVALID_INPUT"

    def __init__(self, message: str | None = None, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path

    def prefixed(self, *prefix: str) -> "InvalidInput":
        """The same problem, seen from further outside."""
        return InvalidInput(self.message, (*prefix, *self.path))


class CursorExpired(RunstateError):
    """The log is no longer kept as far back as the cursor."""

    code = "CURSOR_EXPIRED"

    def __init__(self, oldest: str) -> None:
        super().__init__()
        self.oldest = oldest
        """A cursor at the oldest position that is still kept."""


class NotFound(RunstateError):
    """Nothing has this id."""

    code = "NOT_FOUND"

    def __init__(self, missing: UUID | str | None = None, message: str | None = None) -> None:
        super().__init__(message)
        self.missing_id = None if missing is None else str(missing)


class VersionConflict(RunstateError):
    """The run has moved on."""

    code = "VERSION_CONFLICT"

    def __init__(self, current_version: int) -> None:
        super().__init__(f"The run is at version {current_version} now.")
        self.current_version = current_version


class IdempotencyConflict(RunstateError):
    """The idempotency key was used for another proposal to this run."""

    code = "IDEMPOTENCY_CONFLICT"


class Unauthenticated(RunstateError):
    """A key is needed, one that is neither revoked nor expired."""

    code = "UNAUTHENTICATED"


class Forbidden(RunstateError):
    """This is not allowed."""

    code = "FORBIDDEN"


class Overloaded(RunstateError):
    """Too much is waiting to be written; try again."""

    code = "OVERLOADED"


class Unavailable(RunstateError):
    """The database cannot be reached; nothing was written."""

    code = "UNAVAILABLE"


class Timeout(RunstateError):
    """It took too long. What was to be written may have been."""

    code = "TIMEOUT"


class SlowConsumer(RunstateError):
    """The subscriber stayed too far behind; subscribe again after the cursor."""

    code = "SLOW_CONSUMER"

    def __init__(self, cursor: str) -> None:
        super().__init__()
        self.cursor = cursor


class ServerRestarting(RunstateError):
    """The server is going away; subscribe again after the cursor."""

    code = "RESTARTING"

    def __init__(self, cursor: str) -> None:
        super().__init__()
        self.cursor = cursor


class ConfigurationError(RunstateError):
    """The settings do not fit together."""

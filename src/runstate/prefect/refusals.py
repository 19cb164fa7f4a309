"""Answers to requests that fail, in the shapes that the client reads."""

from __future__ import annotations

from typing import Any, Final

import structlog
from pydantic import ValidationError

from runstate.errors import (
    BadRequest,
    BadUserInput,
    Forbidden,
    IdempotencyConflict,
    InUse,
    InvalidInput,
    LimitExceeded,
    NameTaken,
    NotFound,
    Overloaded,
    RunstateError,
    Timeout,
    Unauthenticated,
    Unavailable,
    VersionConflict,
)
from runstate.graphql.errors import as_known_error, short
from runstate.prefect.endpoint import Reply

STATUS: Final[dict[type[RunstateError], int]] = {
    BadRequest: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    NameTaken: 409,
    InUse: 409,
    VersionConflict: 409,
    IdempotencyConflict: 409,
    LimitExceeded: 413,
    Overloaded: 503,
    Unavailable: 503,
    Timeout: 503,
}
AGAIN: Final = {"Retry-After": "1"}
"""Headers of a temporary refusal: the client tries again."""
INVALID: Final = "Invalid request received."

log = structlog.get_logger(__name__)


def refusal(error: Exception, request_id: str) -> Reply:
    """Return the answer to a request that raised an error."""
    if isinstance(error, ValidationError):
        return invalid([_mistake(each["loc"], each["msg"], each["type"]) for each in error.errors()])
    known = as_known_error(error)
    if known is None:
        log.error("request_failed", exc_info=error, request_id=request_id)
        return Reply({"exception_message": f"Internal error; the server's log has request {request_id}."}, 500)
    if isinstance(known, InvalidInput | BadUserInput):
        return invalid([_mistake(getattr(known, "path", ()), known.message, "value_error")])
    status = next((STATUS[kind] for kind in type(known).mro() if kind in STATUS), 400)
    member = "exception_message" if status == STATUS[Unavailable] else "detail"
    return Reply({member: short(known.message)}, status, AGAIN if status == STATUS[Unavailable] else {})


def invalid(mistakes: list[dict[str, Any]]) -> Reply:
    """Return the answer to a request with invalid values. It does not repeat the values, which can be secret."""
    return Reply({"exception_message": INVALID, "exception_detail": mistakes, "request_body": None}, 422)


def _mistake(location: Any, message: str, kind: str) -> dict[str, Any]:
    return {"loc": ["body", *location], "msg": short(message), "type": kind}

"""Fallbacks: cases that a plan or the fast path leaves to graphql-core, counted by reason."""

from collections import Counter
from enum import StrEnum
from typing import Any
from weakref import WeakSet

import structlog
from graphql import GraphQLError

from runstate.graphql.errors import as_known_error

log = structlog.get_logger(__name__)


class FallbackReason(StrEnum):
    """Reasons of fallbacks."""

    INPUT = "input"
    """The fast path cannot read the variables; most often a client has made a mistake."""
    VALUE = "value"
    """A plan cannot write a value: a null in a non-null field, a number out of range, a row that was deleted."""
    ERROR = "error"
    """A resolver or the database has failed; graphql-core reports the error with its path."""
    UNEXPECTED = "unexpected"
    """A bug in a plan. The answer is right, but costs twice the work."""


class Fallback(Exception):
    """The case is left to graphql-core on purpose."""

    def __init__(self, reason: FallbackReason = FallbackReason.VALUE) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Fallbacks:
    """Counts of fallbacks."""

    def __init__(self) -> None:
        self.counts: Counter[FallbackReason] = Counter()
        self.logged: WeakSet[Any] = WeakSet()
        """Operations with an unexpected fallback in the log, as long as their documents are cached."""

    def record(self, error: Exception, operation: Any) -> None:
        """Count a fallback; log it if it is unexpected and the first one of its operation."""
        reason = reason_of(error)
        self.counts[reason] += 1
        # Each execution of the document would write the same traceback.
        if reason is FallbackReason.UNEXPECTED and operation not in self.logged:
            self.logged.add(operation)
            name = getattr(operation.name, "value", operation.name)
            log.error("plan_failed", operation=name, exc_info=error)


def reason_of(error: Exception) -> FallbackReason:
    """Return the reason of a fallback."""
    if isinstance(error, Fallback):
        return error.reason
    if isinstance(error, GraphQLError) or as_known_error(error):
        return FallbackReason.ERROR
    return FallbackReason.UNEXPECTED

"""Actors and scopes."""

from collections.abc import Iterable
from enum import StrEnum

ANONYMOUS = "anonymous"
"""The actor of requests without credentials, where none are required."""
SERVER = "runstate"
"""The actor of states that the server proposes itself."""


class Scope(StrEnum):
    """What a key allows. Each includes those before it."""

    READ = "read"
    """Queries and subscriptions."""
    PROPOSE = "propose"
    """What programs that run workflows do: make runs, propose states for them, take slots."""
    ADMIN = "admin"
    """Everything: deployments, limits, deleting."""


def included(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes, with all that they include."""
    order = list(Scope)
    return frozenset(order[: max((order.index(scope) + 1 for scope in scopes), default=0)])

"""Actors and scopes."""

from collections.abc import Iterable
from enum import StrEnum

ANONYMOUS = "anonymous"
"""The actor of requests without credentials, where none are required."""
SERVER = "runstate"
"""The actor of states that the server proposes itself."""


class Scope(StrEnum):
    """A permission of a key. Each includes the ones before it."""

    READ = "read"
    """Queries and subscriptions."""
    PROPOSE = "propose"
    """The requests of programs that run workflows: create runs, propose states, acquire slots."""
    ADMIN = "admin"
    """Everything: deployments, limits, deleting."""


def included(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes, with all that they include."""
    order = list(Scope)
    return frozenset(order[: max((order.index(scope) + 1 for scope in scopes), default=0)])

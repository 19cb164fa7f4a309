"""Actors and scopes."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

ANONYMOUS = "anonymous"
"""The actor of requests without credentials, where none are required."""
SERVICE = "service:"
"""Prefix of the actors of states that the server's services propose."""
IMPORT = f"{SERVICE}import"
"""The actor of imported states. The log of transitions does not have them."""


def is_service(actor: str) -> bool:
    """Whether an actor is a service of the server."""
    return actor.startswith(SERVICE)


class Scope(StrEnum):
    """A permission of a key."""

    READ = "read"
    """Queries and subscriptions."""
    PROPOSE = "propose"
    """The requests of programs that run workflows: create runs, propose states, acquire slots. Includes `read`."""
    ADMIN = "admin"
    """Everything else: deployments, limits, deletions. Includes `propose`."""
    SECRETS = "secrets"
    """Secrets of blocks in clear text. No other scope includes it."""


LEVELS: Final[tuple[Scope, ...]] = (Scope.READ, Scope.PROPOSE, Scope.ADMIN)
"""Scopes of which each includes those before it. A scope that is not listed includes no other, and no other it."""


def included(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return the scopes with all that they include."""
    return frozenset(
        each for scope in scopes for each in (LEVELS[: LEVELS.index(scope)] if scope in LEVELS else ()) + (scope,)
    )

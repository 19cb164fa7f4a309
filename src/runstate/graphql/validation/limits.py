"""Limits of requests."""

from dataclasses import dataclass

from runstate.database.budget import ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of requests and of what clients learn about the schema. Each is a setting."""

    body_bytes: int = 2**20
    characters: int = 65_536
    tokens: int = 5_000
    depth: int = 16
    aliases: int = 100
    root_fields: int = 20
    directives: int = 50
    list_items: int = 1_000
    cost: int = 50_000
    answer_bytes: int = ANSWER_BYTES
    errors: int = 5
    operation_seconds: float = 30
    operations: int = 1_000
    subscriptions: int = 10_000
    socket_operations: int = 100
    introspection: bool = True
    suggestions: bool = True
    preflight: bool = True
    """Whether GET requests must have a header that a page of another site cannot send without a preflight (CSRF)."""

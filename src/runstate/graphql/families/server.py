"""The server and the client: server, viewer."""

from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import strawberry

from runstate import __version__
from runstate.core.access.credentials import UNRESTRICTED
from runstate.documents.access import Scope
from runstate.feed import PAGE_SIZE
from runstate.graphql.context import Info
from runstate.graphql.pagination.keyset import LARGEST_SIZE
from runstate.graphql.types.derive import register_type
from runstate.graphql.types.fields import object_type, query
from runstate.graphql.validation.limits import RequestLimits

STARTED: Final = datetime.now(UTC)
"""The time at which this process started."""


class DatabaseKind(Enum):
    """Kind of database."""

    SQLITE = "SQLITE"
    """A file that one process writes."""
    POSTGRESQL = "POSTGRESQL"
    """A server that several processes share."""


class Feature(Enum):
    """A feature of the server that a setting turns on or off."""

    AUTHENTICATION = "AUTHENTICATION"
    """Requests need a key or a password."""
    CSRF_TOKENS = "CSRF_TOKENS"
    """Mutations need a CSRF token."""
    GET_PREFLIGHT = "GET_PREFLIGHT"
    """GET requests need a header such as `GraphQL-Require-Preflight`."""
    INTROSPECTION = "INTROSPECTION"
    """Queries can select `__schema` and `__type`."""


register_type(DatabaseKind, Feature, Scope)


@object_type
class Viewer:
    """The client of this request."""

    name: str = strawberry.field(description="Name of the key; `anonymous` without authentication.")
    scopes: list[Scope] = strawberry.field(description="Scopes of the client, with those that they include.")


@object_type
class ServerLimits:
    """Limits of requests. An operation that exceeds one is an error with the code LIMIT_EXCEEDED or TIMEOUT."""

    body_bytes: int = strawberry.field(description="Bytes of a request body.")
    document_characters: int = strawberry.field(description="Characters of a document.")
    document_tokens: int = strawberry.field(description="Tokens of a document.")
    depth: int = strawberry.field(description="Levels of nested fields.")
    aliases: int = strawberry.field(description="Aliases in a document.")
    root_fields: int = strawberry.field(description="Root fields of an operation.")
    list_items: int = strawberry.field(description="Items of a list in a document or in variables.")
    cost: int = strawberry.field(description="Objects that an answer may contain.")
    operation_seconds: float = strawberry.field(description="Seconds after which an operation times out.")
    page_size: int = strawberry.field(description="Objects on a page of a connection.")
    transitions: int = strawberry.field(description="Transitions on a page.")


@object_type
class Server:
    """The server process that answers the request."""

    version: str = strawberry.field(description="Version of runstate.")
    started_at: datetime = strawberry.field(description="Time at which the process started.")
    database: DatabaseKind = strawberry.field(description="Kind of its database.")
    features: list[Feature] = strawberry.field(description="Features that are on.")
    limits: ServerLimits = strawberry.field(description="Limits of requests.")


@strawberry.type
class Query:
    """The server and the client."""

    @query
    async def viewer(self, info: Info) -> Viewer:
        """The client of this request, with its scopes."""
        principal = info.context.principal
        return Viewer(name=principal.name, scopes=[each for each in Scope if each in principal.scopes])

    @query
    async def server(self, info: Info) -> Server:
        """The server process that answers the request: its version, features and limits."""
        schema: Any = info.schema
        limits: RequestLimits = schema.documents.limits
        return Server(
            version=__version__,
            started_at=STARTED,
            database=DatabaseKind.SQLITE if info.context.database.is_sqlite else DatabaseKind.POSTGRESQL,
            features=_features(info, limits),
            limits=_limits(limits),
        )


def _features(info: Info, limits: RequestLimits) -> list[Feature]:
    is_on = {
        Feature.AUTHENTICATION: info.context.principal is not UNRESTRICTED,
        Feature.CSRF_TOKENS: info.context.csrf is not None,
        Feature.GET_PREFLIGHT: limits.preflight,
        Feature.INTROSPECTION: limits.introspection,
    }
    return [feature for feature, on in is_on.items() if on]


def _limits(limits: RequestLimits) -> ServerLimits:
    return ServerLimits(
        body_bytes=limits.body_bytes,
        document_characters=limits.characters,
        document_tokens=limits.tokens,
        depth=limits.depth,
        aliases=limits.aliases,
        root_fields=limits.root_fields,
        list_items=limits.list_items,
        cost=limits.cost,
        operation_seconds=limits.operation_seconds,
        page_size=LARGEST_SIZE,
        transitions=PAGE_SIZE,
    )

"""Declaration of endpoints, and the request that their handlers get."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, TypeVar, cast, get_type_hints
from uuid import UUID

from pydantic import TypeAdapter
from starlette.requests import Request

from runstate.core.access.credentials import Principal
from runstate.core.batch.batcher import Batcher
from runstate.core.context import CommandContext
from runstate.database import Database
from runstate.documents.access import Scope
from runstate.errors import InvalidInput
from runstate.feed import Feed
from runstate.prefect.bodies import has_nul, parsed, without_nul

H = TypeVar("H", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with another status than the declared one."""

    content: Any
    status: int
    headers: dict[str, str] = field(default_factory=dict)


class Call:
    """A request to an endpoint: the client, the values of its path and query, and what commands need."""

    def __init__(self, request: Request, principal: Principal, request_id: str) -> None:
        self.request = request
        self.principal = principal
        self.request_id = request_id
        self.body_bytes = 0
        """Size of the body that was read."""
        state = request.app.state
        self.batcher: Batcher = state.batcher
        self.database: Database = state.database
        self.feed: Feed = state.feed

    @cached_property
    def context(self) -> CommandContext:
        """The environment of commands."""
        return replace(self.batcher.context, actor=self.principal.name)

    @cached_property
    def now(self) -> datetime:
        """Time of the request."""
        return self.batcher.clock()

    @property
    def who(self) -> dict[str, Any]:
        """The actor and the id of the request, which are stored with every state."""
        return {"actor": self.principal.name, "request_id": self.request_id}

    def text(self, name: str) -> str:
        """Return a value of the path. Raise InvalidInput if no text that is stored can be equal."""
        return _storable(cast("str", self.request.path_params[name]), name)

    def id(self, name: str = "id") -> UUID:
        """Return an id of the path. Raise InvalidInput if it is malformed."""
        return as_uuid(self.text(name), name)

    def query(self, name: str) -> str | None:
        """Return a value of the query string; None if it is missing. Raise InvalidInput as for the path."""
        value = self.request.query_params.get(name)
        return None if value is None else _storable(value, name)


def _storable(text: str, name: str) -> str:
    if "\0" in text:
        raise InvalidInput("The value has a NUL, which PostgreSQL cannot store.", (name,))
    return text


def as_uuid(text: str, name: str) -> UUID:
    """Return the UUID of a text. Raise InvalidInput if it is malformed."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("The value is not a valid UUID.", (name,)) from None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path, its scope and its handler."""

    method: str
    path: str
    scope: Scope
    handler: Callable[..., Awaitable[Any]]
    body: TypeAdapter[Any] | None
    """Type of the body; None if it is not read."""
    status: int

    def content(self, body: bytes) -> Any:
        """Return the value of a body. Raise InvalidInput or ValidationError if it is not valid."""
        assert self.body  # noqa: S101 only then it is read
        if self.scope is Scope.PROPOSE:
            body = without_nul(body)
        # Some requests of the client have no body where all members have defaults.
        content = self.body.validate_python(parsed(body or b"{}"))
        if has_nul(body):
            raise InvalidInput("The body has a NUL, which PostgreSQL cannot store.")
        return content


ENDPOINTS: Final[list[Endpoint]] = []
"""The declared endpoints."""


def endpoint(method: str, path: str, scope: Scope, *, status: int = 200) -> Callable[[H], H]:
    """Return a decorator that declares the handler of an endpoint.

    The handler takes the call and, if the endpoint has a body, the body in the type of its annotation. It returns the
    content of an answer with the declared status, or a Reply with another one.
    """

    def decorate(handler: H) -> H:
        kind = get_type_hints(handler).get("body")
        ENDPOINTS.append(Endpoint(method, path, scope, handler, kind and TypeAdapter(kind), status))
        return handler

    return decorate

"""What pages of other sites may not do with a browser that reaches the server."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.http.websocket_origin import is_same_origin, normalize_allowed_origins, normalize_origin

from runstate.errors import ConfigurationError, Forbidden
from runstate.graphql.transport.authentication import refusal

ANY: Final = "*"
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "[::1]")
"""How a server on loopback is called; another name may be one that somebody else had lead here: DNS rebinding."""


class OwnPages:
    """Refuses what browsers ask for pages of other sites, but those that are allowed.

    A browser says on whose behalf it asks, and pages cannot change that. Other clients say nothing of it.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app = app
        self.allowed = normalize_allowed_origins(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered; those of WebSockets are looked at where these are opened."""
        if scope["type"] == "http" and self.is_foreign(Headers(scope=scope)):
            response = refusal(Request(scope), Forbidden("Pages of this origin may not ask."))
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def is_foreign(self, headers: Headers) -> bool:
        """Whether a page of another site asks; following a link from there is no asking."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if ANY in self.allowed or site == "same-origin":
            return False
        if origin is None:
            return site in {"cross-site", "same-site"} and headers.get("sec-fetch-mode") != "navigate"
        return not is_same_origin(origin, headers.get("host")) and normalize_origin(origin) not in self.allowed


def guards(hosts: Sequence[str], origins: Sequence[str]) -> list[Middleware]:
    """What stands before everything: the hosts that the server goes by, if any are given, and whose pages may ask."""
    try:
        normalize_allowed_origins(origins)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    named = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)] if hosts else []
    shared = Middleware(
        CORSMiddleware,
        allow_origins=[normalize_origin(each) or each for each in origins],
        allow_methods=("GET", "POST"),
        allow_headers=(ANY,),  # who may ask at all may say anything: clients and tracers have headers of their own
        expose_headers=("X-Request-ID", "Retry-After"),
    )
    return [*named, *([shared] if origins else []), Middleware(OwnPages, allowed=origins)]

"""Protection from requests that browsers send for pages of other sites: host names and origins."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from strawberry.http.websocket_origin import is_same_origin, normalize_allowed_origins, normalize_origin
from websockets.frames import CloseCode

from runstate.errors import ConfigurationError, Forbidden
from runstate.graphql.transport.authentication import refusal

ANY: Final = "*"
BROWSER_HEADERS: Final = frozenset({b"origin", b"sec-fetch-site"})
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names of a server on loopback. By DNS rebinding, other sites can make their own names point here."""


class OwnPages:
    """Rejects requests for pages of other sites, except allowed origins.

    Browsers set the headers with the origin, and pages cannot change them. Other clients do not send them.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app = app
        self.allowed = normalize_allowed_origins(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it. A WebSocket is rejected before it is accepted, with status 403."""
        # Most clients send neither header; a search for each name in Starlette's headers costs more than this.
        if (
            scope["type"] != "lifespan"
            and not BROWSER_HEADERS.isdisjoint(name for name, _ in scope["headers"])
            and self.is_foreign(Headers(scope=scope))
        ):
            await _reject(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def is_foreign(self, headers: Headers) -> bool:
        """Return whether a page of another site sends the request. A link that is followed from there is allowed."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if ANY in self.allowed or site == "same-origin":
            return False
        # Browsers omit Origin in GET requests without CORS, but send Sec-Fetch-Site.
        if origin is None:
            return site in {"cross-site", "same-site"} and headers.get("sec-fetch-mode") != "navigate"
        return not is_same_origin(origin, headers.get("host")) and normalize_origin(origin) not in self.allowed


async def _reject(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": CloseCode.POLICY_VIOLATION})
        return
    response = refusal(Request(scope), Forbidden("Origin not allowed. Add it to RUNSTATE_ALLOWED_ORIGINS."))
    await response(scope, receive, send)


def guards(hosts: Sequence[str], origins: Sequence[str]) -> list[Middleware]:
    """Return the outermost middleware: checks of the host name, if there are hosts, and of the origin."""
    try:
        # Checked at the start, so that a malformed origin is an error of the configuration.
        normalize_allowed_origins(origins)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    named = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)] if hosts else []
    shared = Middleware(
        CORSMiddleware,
        allow_origins=[normalize_origin(each) or each for each in origins],
        allow_methods=("GET", "POST"),
        allow_headers=(ANY,),  # clients and tracers have headers of their own
        expose_headers=("X-Request-ID", "Retry-After"),
    )
    return [*named, *([shared] if origins else []), Middleware(OwnPages, allowed=origins)]

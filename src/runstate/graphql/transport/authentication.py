"""Authentication of requests, and the responses to requests that are rejected before they are read."""

from collections.abc import Callable
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runstate.core.access.credentials import CredentialCache
from runstate.errors import RunstateError, Unauthenticated
from runstate.graphql.errors import Code, as_known_error
from runstate.graphql.transport.http import COME_BACK, request_id
from runstate.graphql.types.scalars import dumped

log = structlog.get_logger(__name__)

UNAVAILABLE: Final = 503
STATUS: Final = {
    Code.BAD_REQUEST.value: 400,
    Code.UNAUTHENTICATED.value: 401,
    Code.FORBIDDEN.value: 403,
    Code.INTERNAL.value: 500,
}
"""Status of a request that is rejected before it is read, by code; 503 for other codes."""


class Admission:
    """Passes on requests with a valid credential, and requests to public paths.

    WebSockets are passed on, too: they authenticate with their first message and accept no operation before it.
    """

    def __init__(self, app: ASGIApp, is_open: Callable[[Scope], bool], *, basic: bool = False) -> None:
        self.app = app
        self.is_open = is_open
        self.challenge = 'Bearer realm="runstate"' + (', Basic realm="runstate", charset="UTF-8"' if basic else "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or reject it."""
        if scope["type"] != "http" or self.is_open(scope):
            await self.app(scope, receive, send)
            return
        credentials: CredentialCache = scope["app"].state.credentials
        try:
            scope["principal"] = await credentials.admit(Headers(scope=scope).get("authorization"))
        except Exception as error:
            # The database may be unavailable, which is answered with 503.
            request = HTTPConnection(scope)
            fault = as_known_error(error)
            if fault is None:
                log.exception("request_failed", request_id=request_id(request))
                fault = RunstateError("Internal error")
            await self._refusal(request, fault)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, request: HTTPConnection, fault: RunstateError) -> Response:
        response = refusal(request, fault)
        if isinstance(fault, Unauthenticated):
            # HTTP requires a challenge with status 401.
            response.headers["WWW-Authenticate"] = self.challenge
        return response


def refusal(request: HTTPConnection, fault: RunstateError) -> Response:
    """Return the response to a request that is rejected before it is read."""
    known_as, status = request_id(request), STATUS.get(fault.code, UNAVAILABLE)
    extensions = {"code": fault.code, "requestId": known_as}
    body = dumped({"errors": [{"message": fault.message, "extensions": extensions}]})
    log.info("request_refused", code=fault.code, status=status, path=request.scope["path"], request_id=known_as)
    headers = {"X-Request-ID": known_as, **(COME_BACK if status == UNAVAILABLE else {})}
    return Response(body, status, headers, "application/json; charset=utf-8")

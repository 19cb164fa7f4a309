"""CSRF tokens, in the headers of the client."""

from typing import Final

from starlette.requests import Request

from runstate.core.access.csrf import CsrfTokens
from runstate.errors import Forbidden

CLIENT: Final = "Prefect-Csrf-Client"
TOKEN: Final = "Prefect-Csrf-Token"  # noqa: S105 the name of a header
CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


async def check_token(request: Request) -> None:
    """Raise Forbidden if the server requires CSRF tokens and the headers have no valid one."""
    tokens: CsrfTokens | None = request.app.state.csrf
    # Requests that change nothing need no token, as in the reference.
    if tokens is None or request.method not in CHANGES:
        return
    client, token = request.headers.get(CLIENT, ""), request.headers.get(TOKEN, "")
    if not client or not token or not await tokens.is_token_of(client, token):
        # The client gets a new token if it reads these three words.
        raise Forbidden("Invalid CSRF token.")

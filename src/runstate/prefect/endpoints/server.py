"""The server: its version and health, and CSRF tokens."""

from typing import Any
from uuid import uuid4

from runstate.documents.access import Scope
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.prefect.versions import SERVED

LONGEST_CLIENT = 200


@endpoint("GET", "/admin/version", Scope.READ)
async def version(_: Call) -> str:
    """Return the version of Prefect whose API is served."""
    return SERVED


@endpoint("GET", "/health", Scope.READ)
async def health(_: Call) -> bool:
    """Return true: the server answers."""
    return True


@endpoint("GET", "/hello", Scope.READ)
async def hello(_: Call) -> str:
    """Greet the client."""
    return "👋"


@endpoint("GET", "/csrf-token", Scope.READ)
async def csrf_token(call: Call) -> Any:
    """Create a CSRF token for a client, if the server requires them."""
    tokens = call.request.app.state.csrf
    if tokens is None:
        return Reply({"detail": "CSRF protection is disabled."}, 422)
    token = await tokens.give((call.query("client") or str(uuid4()))[:LONGEST_CLIENT])
    return {"id": token.id, "token": token.token, "client": token.client, "expiration": token.expiration}

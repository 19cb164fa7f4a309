"""CSRF tokens: csrfToken, createCsrfToken, and the check of mutations."""

from collections.abc import Mapping
from typing import Annotated, Final

import strawberry

from runstate.core.access.csrf import CsrfTokens
from runstate.documents.access import Scope
from runstate.errors import Forbidden, InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import mutation
from runstate.graphql.published import CsrfToken
from runstate.graphql.types.fields import object_type, query

CLIENT: Final = "Runstate-Csrf-Client"
SENT: Final = "Runstate-Csrf-Token"
LONGEST_CLIENT: Final = 200
MISSING: Final = (
    f"Missing or invalid CSRF token. Get one with `createCsrfToken` and send it in the headers `{CLIENT}` and `{SENT}`."
)

Client = Annotated[
    str, strawberry.argument(description="Name of the client; each client should use a new, random name.")
]


async def check(tokens: CsrfTokens, headers: Mapping[str, str]) -> None:
    """Raise Forbidden if the headers (names in lower case) contain no valid token of the client."""
    client, token = headers.get(CLIENT.lower(), ""), headers.get(SENT.lower(), "")
    if not client or not token or not await tokens.is_token_of(client, token):
        raise Forbidden(MISSING)


@object_type
class CreateCsrfTokenPayload:
    """The new token."""

    csrf_token: CsrfToken = strawberry.field(description="The token, for `Runstate-Csrf-Token`.")


@strawberry.type
class Query:
    """Tokens."""

    @query
    async def csrf_token(self, info: Info, client: Client) -> CsrfToken | None:
        """The valid token of a client; null if it has no token, or if the server requires no tokens."""
        tokens = info.context.csrf
        return await tokens.of(client) if tokens else None


@strawberry.type
class Mutation:
    """Tokens."""

    @mutation(Scope.PROPOSE, InvalidInput)
    async def create_csrf_token(self, info: Info, client: Client) -> CreateCsrfTokenPayload:
        """Create a token that is valid for an hour. Mutations must send it if RUNSTATE_CSRF is on."""
        tokens = info.context.csrf
        if tokens is None:
            raise InvalidInput("The server requires no CSRF tokens: RUNSTATE_CSRF is off.")
        # Clients send the name in a header.
        if not 1 <= len(client) <= LONGEST_CLIENT or not (client.isascii() and client.isprintable()):
            raise InvalidInput(
                f"The name of a client must have 1 to {LONGEST_CLIENT} printable ASCII characters.", ("client",)
            )
        return CreateCsrfTokenPayload(csrf_token=await tokens.give(client))

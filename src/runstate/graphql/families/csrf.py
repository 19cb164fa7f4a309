"""Tokens against requests that another site's page makes a browser send: given, and asked for with mutations."""

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
MISSING: Final = f"A mutation needs a token that is good: createCsrfToken gives it, {CLIENT} and {SENT} carry it."

Client = Annotated[str, strawberry.argument(description="What the client calls itself; a new name for each is best.")]


async def check(tokens: CsrfTokens, headers: Mapping[str, str]) -> None:
    """Forbidden: a request, whose headers are named in small letters, carries no token, or not the client's."""
    client, token = headers.get(CLIENT.lower(), ""), headers.get(SENT.lower(), "")
    if not client or not token or not await tokens.is_token_of(client, token):
        raise Forbidden(MISSING)


@object_type
class CreateCsrfTokenPayload:
    """The token."""

    csrf_token: CsrfToken = strawberry.field(description="The token, for `Runstate-Csrf-Token`.")


@strawberry.type
class Query:
    """Tokens."""

    @query
    async def csrf_token(self, info: Info, client: Client) -> CsrfToken | None:
        """The token that a client was given last; null: it has none, it has expired, or none is asked for here."""
        tokens = info.context.csrf
        return await tokens.of(client) if tokens else None


@strawberry.type
class Mutation:
    """Tokens."""

    @mutation(Scope.PROPOSE, InvalidInput)
    async def create_csrf_token(self, info: Info, client: Client) -> CreateCsrfTokenPayload:
        """Get a token for an hour, to be sent with each mutation where RUNSTATE_CSRF asks for it."""
        tokens = info.context.csrf
        if tokens is None:
            raise InvalidInput("No tokens are asked for here: RUNSTATE_CSRF is off.")
        if not 1 <= len(client) <= LONGEST_CLIENT or not (client.isascii() and client.isprintable()):
            raise InvalidInput(f"A client has a name of 1 to {LONGEST_CLIENT} ASCII characters.", ("client",))
        return CreateCsrfTokenPayload(csrf_token=await tokens.give(client))

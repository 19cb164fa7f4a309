"""CSRF tokens: off by default; if they are required, mutations of pages on other sites fail."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.rows import CsrfToken
from tests.client import Ask
from tests.graphql.mutations import PROBLEM
from tests.subscribing import Listening, asking, connected, listening

GIVE = f"""mutation($client: String!) {{ it: createCsrfToken(client: $client) {{
  {PROBLEM} ... on CreateCsrfTokenPayload {{ csrfToken {{ client token expiration }} }} }} }}"""
OF_CLIENT = "query($client: String!) { csrfToken(client: $client) { token } }"
CREATE = 'mutation { createFlow(input: { name: "etl" }) { __typename } }'
BOTH = """mutation { createCsrfToken(client: "one") { __typename }
  createFlow(input: { name: "etl" }) { __typename } }"""


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server that requires tokens."""
    async with listening(url, csrf=True) as server:
        yield server


async def given(ask: Ask, client: str = "one") -> dict[str, Any]:
    """Create a token; return the payload."""
    token: dict[str, Any] = (await ask(GIVE, client=client))["it"]["csrfToken"]
    return token


async def post(ask: Ask, document: str, client: str | None, token: str | None, **headers: str) -> httpx.Response:
    named = {"Runstate-Csrf-Client": client, "Runstate-Csrf-Token": token, **headers}
    carried: Any = {name: value.encode("latin-1") for name, value in named.items() if value is not None}
    return await ask.client.post("/graphql", json={"query": document}, headers=carried)


def is_refused(reply: httpx.Response) -> bool:
    refused = reply.status_code == 403
    assert not refused or reply.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    return refused


async def test_a_mutation_needs_the_token_of_its_client(live: Ask) -> None:
    token, other = (await given(live))["token"], (await given(live, "other"))["token"]

    for client, said in ((None, None), ("one", None), (None, token), ("one", other), ("one", "é"), ("nobody", token)):
        assert is_refused(await post(live, CREATE, client, said)), (client, said)
    assert (await live("{ flows { totalCount } }")) == {"flows": {"totalCount": 0}}
    assert (await post(live, CREATE, "one", token)).json()["data"]


async def test_a_token_is_valid_for_an_hour(live: Ask, database: Database) -> None:
    token = await given(live)
    left = datetime.fromisoformat(token["expiration"]) - datetime.now(UTC)
    async with database.write() as transaction:
        past = sa.update(CsrfToken).values(expiration=datetime.now(UTC))
        await transaction.connection.execute(past)

    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert len(token["token"]) == 64
    assert is_refused(await post(live, CREATE, "one", token["token"]))
    assert await live(OF_CLIENT, client="one") == {"csrfToken": None}


async def test_a_client_has_one_token(live: Ask, database: Database) -> None:
    first, second = await given(live), await given(live)

    assert is_refused(await post(live, CREATE, "one", first["token"]))
    assert await live(OF_CLIENT, client="one") == {"csrfToken": {"token": second["token"]}}
    assert await live(OF_CLIENT, client="other") == {"csrfToken": None}
    async with database.read() as connection:
        assert len((await connection.execute(sa.select(CsrfToken.id))).all()) == 1


async def test_expired_tokens_are_deleted_with_the_next_creation(live: Ask, database: Database) -> None:
    await given(live, "old")
    async with database.write() as transaction:
        await transaction.connection.execute(sa.update(CsrfToken).values(expiration=datetime.now(UTC)))
    await given(live, "new")

    async with database.read() as connection:
        assert (await connection.execute(sa.select(CsrfToken.client))).scalars().all() == ["new"]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_creating_a_token_needs_none_but_other_mutations_beside_it_do(live: Ask) -> None:
    assert is_refused(await post(live, BOTH, None, None))
    assert not is_refused(await post(live, "{ __typename }", None, None))
    assert not is_refused(await post(live, "mutation {", None, None))


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_event_stream_needs_the_token_too(live: Ask) -> None:
    assert is_refused(await post(live, CREATE, None, None, Accept="text/event-stream"))


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_sockets_need_no_token_because_their_origin_is_checked(server: Listening) -> None:
    async with connected(server) as socket:
        assert (await (await socket.subscribe(CREATE)).next())["createFlow"]["__typename"] == "CreateFlowPayload"


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("client", ["", "x" * 201, "a\nb", "é"])
async def test_an_invalid_client_name_is_refused(live: Ask, client: str) -> None:
    answer = (await live(GIVE, client=client))["it"]

    assert (answer["__typename"], answer["path"]) == ("InvalidInput", ["client"])


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_the_setting_no_tokens_are_created(url: str) -> None:
    async with listening(url) as server, asking(server) as ask:
        answer = (await ask(GIVE, client="one"))["it"]

        assert answer["__typename"] == "InvalidInput"
        assert "RUNSTATE_CSRF is off" in answer["message"]
        assert await ask(OF_CLIENT, client="one") == {"csrfToken": None}
        assert not is_refused(await post(ask, CREATE, None, None))

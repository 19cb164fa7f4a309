"""What somebody finds who tries the usual weaknesses of GraphQL servers, with the settings of a server for others.

The checks are those of graphql-cop (dolevf/graphql-cop), all thirteen, in words of our own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from runstate.app import build_app
from runstate.database import Database
from runstate.settings import Settings
from tests.client import running
from tests.credentials import Keys, bearing

TYPENAME = "query cop { __typename }"


@pytest.fixture
def kind() -> str:
    """SQLite: nothing here depends on the database."""
    return "sqlite"


@asynccontextmanager
async def reached(url: str, headers: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that others can reach."""
    app = build_app(Settings(database_url=url, services="off", host="203.0.113.7", authentication="keys"))
    transport = httpx.ASGITransport(app)
    async with (
        running(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://runstate", headers=headers, follow_redirects=True
        ) as client,
    ):
        yield client


@pytest.fixture(params=["a stranger", "an administrator"])
async def client(request: pytest.FixtureRequest, url: str, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Who probes: somebody without a key, and somebody with one that allows everything."""
    headers = bearing(await Keys(database).make("prober")) if request.param == "an administrator" else {}
    async with reached(url, headers) as client:
        yield client


async def asked(client: httpx.AsyncClient, query: str) -> Any:
    """The answer to a query."""
    return (await client.post("/graphql", json={"query": query, "operationName": "cop"})).json()


@pytest.mark.parametrize(
    "query",
    [
        "query cop { " + " ".join(f"alias{n}: __typename" for n in range(101)) + " }",
        "query cop { " + "__typename " * 500 + "}",
        "query cop { __schema { types { name fields { name } } } }",
        "query cop { __schema { types { " + "fields { type { " * 4 + "name" + " } }" * 4 + " } } }",
    ],
    ids=["aliases", "repeated fields", "introspection", "circular introspection"],
)
async def test_nothing_is_answered_that_serves_attackers_only(client: httpx.AsyncClient, query: str) -> None:
    body = await asked(client, query)

    assert body["errors"]
    assert not body.get("data")


async def test_repeated_directives_make_few_errors(client: httpx.AsyncClient) -> None:
    assert len((await asked(client, "query cop { __typename " + "@aa" * 10 + " }"))["errors"]) < 10


async def test_nobody_is_told_what_may_be_meant(client: httpx.AsyncClient) -> None:
    assert "Did you mean" not in str(await asked(client, "query cop { __schema { directive } }"))
    assert "Did you mean" not in str(await asked(client, "query cop { flowz { id } }"))


async def test_several_requests_in_one_are_no_request(client: httpx.AsyncClient) -> None:
    body = (await client.post("/graphql", json=[{"query": TYPENAME}] * 10)).json()

    assert [*body] == ["errors"]


@pytest.mark.parametrize("query", [TYPENAME, "mutation cop { __typename }"])
async def test_no_page_of_another_site_can_ask_with_get(client: httpx.AsyncClient, query: str) -> None:
    assert "data" not in (await client.get("/graphql", params={"query": query})).json()


async def test_no_form_of_another_site_can_ask(client: httpx.AsyncClient) -> None:
    assert "data" not in (await client.post("/graphql", data={"query": TYPENAME})).json()


async def test_there_is_no_page_that_explores(client: httpx.AsyncClient) -> None:
    for path in ("/", "/graphql", "/graphiql", "/graphiql/", "/playground"):
        reply = await client.get(path, headers={"accept": "text/html"})
        assert not any(word in reply.text.lower() for word in ("graphiql", "playground"))


@pytest.mark.parametrize("query", [TYPENAME, "qwerty cop { abc }"], ids=["right", "wrong"])
async def test_neither_traces_nor_exceptions_are_told(client: httpx.AsyncClient, query: str) -> None:
    text = str(await asked(client, query)).lower()

    assert not any(word in text for word in ("tracing", "exception", "traceback", ".py"))

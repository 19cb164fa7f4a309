"""Common weaknesses of GraphQL servers, tested with the settings of an exposed server.

The checks are all thirteen of graphql-cop (dolevf/graphql-cop), reimplemented.
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
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@asynccontextmanager
async def reached(url: str, headers: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an exposed server."""
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
    """Yield a client without a key, and one with a key for every scope."""
    headers = bearing(await Keys(database).make("prober")) if request.param == "an administrator" else {}
    async with reached(url, headers) as client:
        yield client


async def asked(client: httpx.AsyncClient, query: str) -> Any:
    """Return the answer to a query."""
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
async def test_expensive_and_introspecting_documents_are_refused(client: httpx.AsyncClient, query: str) -> None:
    body = await asked(client, query)

    assert body["errors"]
    assert not body.get("data")


async def test_repeated_directives_cause_few_errors(client: httpx.AsyncClient) -> None:
    assert len((await asked(client, "query cop { __typename " + "@aa" * 10 + " }"))["errors"]) < 10


async def test_errors_contain_no_suggestions(client: httpx.AsyncClient) -> None:
    assert "Did you mean" not in str(await asked(client, "query cop { __schema { directive } }"))
    assert "Did you mean" not in str(await asked(client, "query cop { flowz { id } }"))


async def test_batched_requests_are_refused(client: httpx.AsyncClient) -> None:
    body = (await client.post("/graphql", json=[{"query": TYPENAME}] * 10)).json()

    assert [*body] == ["errors"]


@pytest.mark.parametrize("query", [TYPENAME, "mutation cop { __typename }"])
async def test_a_get_request_of_another_site_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert "data" not in (await client.get("/graphql", params={"query": query})).json()


async def test_a_form_of_another_site_is_refused(client: httpx.AsyncClient) -> None:
    assert "data" not in (await client.post("/graphql", data={"query": TYPENAME})).json()


async def test_there_is_no_graphical_client(client: httpx.AsyncClient) -> None:
    for path in ("/", "/graphql", "/graphiql", "/graphiql/", "/playground"):
        reply = await client.get(path, headers={"accept": "text/html"})
        assert not any(word in reply.text.lower() for word in ("graphiql", "playground"))


@pytest.mark.parametrize("query", [TYPENAME, "qwerty cop { abc }"], ids=["right", "wrong"])
async def test_answers_contain_no_traces_and_no_exceptions(client: httpx.AsyncClient, query: str) -> None:
    text = str(await asked(client, query)).lower()

    assert not any(word in text for word in ("tracing", "exception", "traceback", ".py"))

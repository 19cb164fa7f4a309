"""Server-sent events: one operation for each connection, as in graphql-sse."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
import pytest

from runstate.graphql.transport import sse
from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.subscribing import Listening

TRANSITIONS = "subscription($after: String) { transitions(after: $after) { cursor transitions { runId version } } }"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


Event = tuple[str, Any]


@asynccontextmanager
async def events(
    live: Ask, document: str, method: str = "POST", **variables: Any
) -> AsyncIterator[AsyncGenerator[Event, None]]:
    """Yield the events of an operation."""
    said = {"query": document, "variables": variables}
    if method == "GET":
        url = "/graphql?" + urlencode({"query": document, "variables": orjson.dumps(variables).decode()})
        request = live.client.build_request("GET", url, headers={**EVENTS, "GraphQL-Require-Preflight": "1"})
    else:
        request = live.client.build_request("POST", "/graphql", json=said, headers=EVENTS)
    response = await live.client.send(request, stream=True)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    try:
        yield parsed(response)
    finally:
        await response.aclose()


async def parsed(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """Yield the events of the lines of a response; a comment is an event without a name."""
    name, data = "", ""
    async for line in response.aiter_lines():
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data = line.removeprefix("data:").strip()
        elif not line:
            yield name, orjson.loads(data) if data else None
            name, data = "", ""


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_subscription_delivers_events_immediately(live: Ask, method: str) -> None:
    async with events(live, TRANSITIONS, method) as stream:
        name, first = await anext(stream)
        assert (name, first["data"]["transitions"]["transitions"]) == ("next", [])
        run = await make_flow_run(live)
        for version in (1, 2):
            _, event = await anext(stream)
            assert event["data"]["transitions"]["transitions"] == [{"runId": run, "version": version}]
            await propose(live, run, "RUNNING")


async def test_a_subscription_that_ends_sends_complete(live: Ask) -> None:
    run = await make_flow_run(live)
    await propose(live, run, "COMPLETED")
    document = "subscription($run: RunRef!) { runTransitions(run: $run, untilFinal: true) { version } }"

    async with events(live, document, run={"flowRunId": run}) as stream:
        told = [event async for event in stream]

    assert told == [
        ("next", {"data": {"runTransitions": {"version": 1}}}),
        ("next", {"data": {"runTransitions": {"version": 2}}}),
        ("complete", None),
    ]


async def test_a_query_is_answered_as_events(live: Ask) -> None:
    async with events(live, "{ __typename }") as stream:
        (name, body), complete = [event async for event in stream]

    assert (name, body["data"], complete) == ("next", {"__typename": "Query"}, ("complete", None))


@pytest.mark.parametrize(
    ("document", "method", "code"),
    [
        ("{ oh no", "POST", "GRAPHQL_PARSE_FAILED"),
        ("{ nothingLikeThis }", "POST", "BAD_USER_INPUT"),
        ('subscription { transitions(after: "x") { cursor } }', "POST", "INVALID_INPUT"),
        ('mutation { createFlow(input: {name: "x"}) { __typename } }', "GET", "BAD_USER_INPUT"),
    ],
)
async def test_the_error_of_a_refused_operation_is_the_only_event(
    live: Ask, document: str, method: str, code: str
) -> None:
    async with events(live, document, method) as stream:
        (name, body), complete = [event async for event in stream]

    assert name == "next"
    assert "data" not in body
    assert body["errors"][0]["extensions"]["code"] == code
    assert complete == ("complete", None)


async def test_an_invalid_request_is_refused_before_the_stream_starts(live: Ask) -> None:
    response = await live.client.post("/graphql", json=[], headers=EVENTS)

    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_an_idle_connection_is_kept_alive_by_comments() -> None:
    async def silence() -> AsyncGenerator[Any, None]:
        await waiting
        yield

    waiting = asyncio.get_running_loop().create_future()
    body: Any = sse.streamed(silence(), heartbeat_seconds=0.001).body_iterator

    assert [await anext(body), await anext(body)] == [sse.HEARTBEAT, sse.HEARTBEAT]
    await body.aclose()
    assert waiting.cancelled()


async def test_a_disconnected_client_leaves_no_subscriber(live: Ask, server: Listening) -> None:
    async with events(live, TRANSITIONS) as stream:
        await anext(stream)
        await server.hub.join()
        assert len(server.hub.subscribers) == 1
    while server.hub.subscribers:
        await server.hub.join()

    assert not server.hub.unkeyed


async def test_at_shutdown_the_stream_ends_without_complete(live: Ask, server: Listening) -> None:
    async with events(live, TRANSITIONS) as stream:
        await anext(stream)
        server.should_exit = True

        assert [event async for event in stream] == []

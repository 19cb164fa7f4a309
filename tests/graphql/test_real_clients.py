"""Common clients of subscriptions: npm's graphql-ws and graphql-sse, and Python's gql."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from gql import Client, gql
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport

from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.node import Packages, Subscriber
from tests.subscribing import Listening, asking

TRANSITIONS = "subscription($after: String) { transitions(after: $after) { cursor transitions { runId version } } }"
ONE_RUN = "subscription($run: RunRef!) { runTransitions(run: $run, untilFinal: true) { version stateType } }"
CREATE = 'mutation { createFlow(input: { name: "etl" }) { __typename ... on CreateFlowPayload { flow { name } } } }'
TRANSPORTS = ("ws", "sse")


def http(server: Listening) -> str:
    """Return the URL of the GraphQL endpoint."""
    return f"http://{server.address}"


async def versions(subscriber: Subscriber, number: int) -> list[int]:
    """Return the versions of the next transitions."""
    seen: list[int] = []
    while len(seen) < number:
        seen += [each["version"] for each in (await subscriber.next())["transitions"]["transitions"]]
    return seen


async def proposed(server: Listening, run: str, state: str) -> None:
    """Propose a state over a connection of its own."""
    async with asking(server) as ask:
        await propose(ask, run, state, force=True)


def cut(server: Listening) -> int:
    """Close open connections like a failing network; return their number."""
    connections = list(server.server_state.connections)
    for connection in connections:
        connection.transport.abort()
    return len(connections)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_npm_client_receives_the_transitions_of_a_run_to_its_end(
    clients: Packages, server: Listening, live: Ask, transport: str
) -> None:
    run = await make_flow_run(live)
    async with clients.subscriber(transport, http(server), ONE_RUN, run={"flowRunId": run}) as subscriber:
        assert (await subscriber.next())["runTransitions"] == {"version": 1, "stateType": "PENDING"}
        await propose(live, run, "RUNNING")
        assert (await subscriber.next())["runTransitions"] == {"version": 2, "stateType": "RUNNING"}
        await propose(live, run, "COMPLETED")
        assert (await subscriber.next())["runTransitions"] == {"version": 3, "stateType": "COMPLETED"}
        assert await subscriber.line() == {"complete": True}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_npm_client_sends_queries_and_mutations(clients: Packages, server: Listening, transport: str) -> None:
    for document, data in (
        ("{ __typename }", {"__typename": "Query"}),
        (CREATE, {"createFlow": {"__typename": "CreateFlowPayload", "flow": {"name": "etl"}}}),
    ):
        async with clients.subscriber(transport, http(server), document) as subscriber:
            assert await subscriber.next() == data
            assert await subscriber.line() == {"complete": True}


async def test_over_graphql_ws_a_bad_cursor_is_an_error(clients: Packages, server: Listening) -> None:
    async with clients.subscriber("ws", http(server), TRANSITIONS, after="nonsense") as subscriber:
        (error,) = (await subscriber.line())["error"]

    assert error["extensions"]["code"] == "INVALID_INPUT"


async def test_over_graphql_sse_a_bad_cursor_is_the_only_event(clients: Packages, server: Listening) -> None:
    async with clients.subscriber("sse", http(server), TRANSITIONS, after="nonsense") as subscriber:
        (error,) = (await subscriber.line())["next"]["errors"]
        assert await subscriber.line() == {"complete": True}

    assert error["extensions"]["code"] == "INVALID_INPUT"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_npm_client_that_resumes_with_its_cursor_misses_nothing(
    clients: Packages, server: Listening, transport: str
) -> None:
    async with asking(server) as ask:
        run = await make_flow_run(ask)
        cursor = (await ask("{ transitionCursor }"))["transitionCursor"]
    async with clients.subscriber(transport, http(server), TRANSITIONS, after=cursor) as subscriber:
        await proposed(server, run, "RUNNING")
        seen = await versions(subscriber, 1)
        for state in ("PENDING", "RUNNING", "COMPLETED"):
            await proposed(server, run, state)
            assert cut(server)
            await proposed(server, run, "RUNNING")
            seen += await versions(subscriber, 2)

    assert seen == [2, 3, 4, 5, 6, 7, 8]


@pytest.fixture
async def session(server: Listening) -> AsyncIterator[Any]:
    """Yield a session of gql over a WebSocket."""
    transport = WebsocketsTransport(f"ws://{server.address}")
    async with Client(transport=transport, fetch_schema_from_transport=True) as session:
        yield session


async def test_gql_fetches_the_schema_and_sends_queries_and_subscriptions(session: Any, live: Ask) -> None:
    assert session.client.schema.query_type.name == "Query"
    assert await session.execute(gql("{ flowRunCount }")) == {"flowRunCount": 0}
    run = await make_flow_run(live)
    await propose(live, run, "COMPLETED")
    document = gql(ONE_RUN)
    document.variable_values = {"run": {"flowRunId": run}}

    subscriber = [event["runTransitions"]["stateType"] async for event in session.subscribe(document)]

    assert subscriber == ["PENDING", "COMPLETED"]


async def test_gql_raises_the_error_of_a_bad_cursor(session: Any) -> None:
    document = gql(TRANSITIONS)
    document.variable_values = {"after": "nonsense"}
    with pytest.raises(TransportQueryError, match="The cursor is malformed"):
        _ = [event async for event in session.subscribe(document)]

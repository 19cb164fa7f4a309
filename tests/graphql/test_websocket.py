"""WebSockets: protocol errors, slow clients and shutdown."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import websockets
from starlette.routing import WebSocketRoute

from runstate.graphql.transport.http import Endpoint
from tests.client import Ask
from tests.graphql.mutations import make_flow_run, propose
from tests.subscribing import Listening, Socket, Subscription, asking, connected, dialled

TRANSITIONS = "subscription($after: String) { transitions(after: $after) { cursor transitions { runId version } } }"
TYPENAME = "{ __typename }"


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@pytest.fixture
async def alive(socket: Socket) -> AsyncIterator[Subscription]:
    """Yield a subscription on the socket; check afterwards that it still receives transitions."""
    subscription = await socket.subscribe(TRANSITIONS, "alive")
    await subscription.next()
    yield subscription
    async with asking(socket.server) as live:
        await make_flow_run(live)
    assert (await subscription.next())["transitions"]["transitions"]


async def test_queries_and_mutations_are_answered_and_complete(socket: Socket) -> None:
    query = await socket.subscribe(TYPENAME)
    assert await query.next() == {"__typename": "Query"}
    await query.completed()
    document = 'mutation { createFlow(input: {name: "etl"}) { __typename } }'
    mutation = await socket.subscribe(document)
    assert await mutation.next() == {"createFlow": {"__typename": "CreateFlowPayload"}}
    await mutation.completed()


async def test_the_cost_is_reported_when_the_handshake_asks_for_it(server: Listening) -> None:
    async with connected(server, additional_headers={"GraphQL-Cost": "report"}) as socket:
        await socket.subscribe(TYPENAME)
        message = await socket.hear()

    assert message["payload"]["extensions"] == {"cost": {"requested": 0, "limit": 50_000}}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{ oh no", "GRAPHQL_PARSE_FAILED"),
        ("", "BAD_REQUEST"),
        ("{ nothingLikeThis }", "BAD_USER_INPUT"),
        ("query A { __typename } query B { __typename }", "BAD_USER_INPUT"),
        ("subscription { transitions(after: 5) { cursor } }", "BAD_USER_INPUT"),
    ],
)
@pytest.mark.usefixtures("alive")
async def test_a_bad_document_is_an_error_of_its_operation(socket: Socket, document: str, code: str) -> None:
    subscription = await socket.subscribe(document, "bad")

    assert (await subscription.error())["extensions"]["code"] == code


@pytest.mark.usefixtures("alive")
async def test_an_unknown_operation_name_is_an_error_of_its_operation(socket: Socket) -> None:
    payload = {"query": "query A { __typename }", "operationName": "B"}
    await socket.say({"type": "subscribe", "id": "bad", "payload": payload})

    assert (await Subscription(socket, "bad").error())["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        5,
        "x",
        [],
        [TYPENAME],
        {},
        {"query": None},
        {"query": 5},
        {"query": TYPENAME, "variables": [1]},
        {"query": TYPENAME, "variables": "x"},
        {"query": TYPENAME, "operationName": 5},
        {"query": TYPENAME, "operationName": ["x"]},
    ],
)
@pytest.mark.usefixtures("alive")
async def test_a_bad_payload_is_an_error_of_its_operation(socket: Socket, payload: Any) -> None:
    await socket.say({"type": "subscribe", "id": "bad", "payload": payload})

    assert (await Subscription(socket, "bad").error())["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("key", [5, 1.5, None, True, [1], [], {"a": 1}, ""])
@pytest.mark.usefixtures("alive")
async def test_an_invalid_id_is_an_error_of_its_operation_only(socket: Socket, key: Any) -> None:
    await socket.say({"type": "subscribe", "id": key, "payload": {"query": TYPENAME}})
    message = await socket.hear()
    await socket.say({"type": "complete", "id": key})

    assert message["type"] == "error"
    assert message["payload"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_an_invalid_id_is_not_confused_with_that_of_another_operation(socket: Socket) -> None:
    await (await socket.subscribe(TRANSITIONS, "5")).next()
    await socket.say({"type": "subscribe", "id": 5, "payload": {"query": TYPENAME}})

    assert (await socket.hear())["id"] == ""


@pytest.mark.parametrize("empty", [{"operationName": ""}, {"variables": ""}])
async def test_empty_members_of_a_payload_are_ignored(socket: Socket, empty: dict[str, Any]) -> None:
    await socket.say({"type": "subscribe", "id": "1", "payload": {"query": "query A { __typename }", **empty}})

    assert await Subscription(socket, "1").next() == {"__typename": "Query"}


@pytest.mark.usefixtures("alive")
async def test_a_message_has_the_same_maximum_length_as_a_body(socket: Socket) -> None:
    def message(key: str, length: int) -> str:
        said = {"type": "subscribe", "id": key, "payload": {"query": TYPENAME, "variables": {"x": ""}}}
        return orjson.dumps(said).decode().ljust(length)

    await socket.say(message("large", 2**20))
    assert await Subscription(socket, "large").next() == {"__typename": "Query"}
    await Subscription(socket, "large").completed()
    await socket.say(message("larger", 2**20 + 1))
    assert "must not exceed 1048576" in (await Subscription(socket, "larger").error())["message"]


@pytest.mark.usefixtures("alive")
async def test_a_persisted_query_is_an_error_of_its_operation(socket: Socket) -> None:
    payload = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}}
    await socket.say({"type": "subscribe", "id": "bad", "payload": payload})

    error = await Subscription(socket, "bad").error()
    assert error["extensions"]["code"] == "PERSISTED_QUERY_NOT_SUPPORTED"


@pytest.mark.parametrize(
    "message",
    ["no JSON", "[" * 100_000, b"{}", {}, {"type": "what"}, {"type": ["x"]}, [], [1, 2], None, 5, '"text"', True],
)
async def test_a_message_outside_the_protocol_closes_the_socket(socket: Socket, message: Any) -> None:
    await socket.say(message)

    assert await socket.closed() == 4400


async def test_an_id_cannot_be_used_by_two_operations_at_once(socket: Socket) -> None:
    await (await socket.subscribe(TRANSITIONS)).next()
    await socket.subscribe(TRANSITIONS)

    assert await socket.closed() == 4409


async def test_an_id_is_free_again_when_its_operation_has_ended(socket: Socket) -> None:
    await (await socket.subscribe("{ oh no")).error()
    subscription = await socket.subscribe(TYPENAME)
    await subscription.next()
    await subscription.completed()
    stopped = await socket.subscribe(TRANSITIONS)
    await stopped.next()
    await stopped.stop()

    assert await (await socket.subscribe(TYPENAME)).next() == {"__typename": "Query"}


async def test_no_operation_is_executed_before_the_connection_is_acknowledged(server: Listening) -> None:
    async with dialled(server) as socket:
        await socket.subscribe(TYPENAME)
        assert await socket.closed() == 4401


async def test_a_connection_is_initialised_once(socket: Socket) -> None:
    await socket.say({"type": "connection_init"})

    assert await socket.closed() == 4429


@pytest.mark.parametrize("payload", [None, {}, {"token": "x"}])
async def test_the_initialization_may_have_a_payload(server: Listening, payload: Any) -> None:
    async with dialled(server) as socket:
        await socket.say({"type": "connection_init", "payload": payload})
        assert await socket.hear() == {"type": "connection_ack"}


async def test_a_connection_without_initialization_is_closed(server: Listening) -> None:
    (endpoint,) = {route.app for route in server.starlette.routes if isinstance(route, WebSocketRoute)}
    assert isinstance(endpoint, Endpoint)
    assert endpoint.connection_init_wait_timeout == timedelta(seconds=10)
    endpoint.connection_init_wait_timeout = timedelta(seconds=0.05)
    async with dialled(server) as socket:
        assert await socket.closed() == 4408


@pytest.mark.parametrize("protocols", [["graphql-ws"], ["soap"]])
async def test_other_protocols_are_refused(server: Listening, protocols: list[Any]) -> None:
    async with websockets.connect(f"ws://{server.address}", subprotocols=protocols) as connection:
        await connection.wait_closed()
        assert connection.close_code == 4406


async def test_a_disconnected_client_leaves_no_subscriber(server: Listening) -> None:
    async with connected(server) as socket:
        for key in ("1", "2"):
            await (await socket.subscribe(TRANSITIONS, key)).next()
        await server.hub.join()
        assert len(server.hub.subscribers) == 2
    async with asyncio.timeout(10):
        while server.hub.subscribers:
            await server.hub.join()

    assert not server.hub.unkeyed


async def flood(live: Ask, server: Listening) -> int:
    """Write until the only subscriber is behind; return the number of transitions."""
    run = await make_flow_run(live)
    version = 1
    document = "mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { __typename } }"
    said = {"type": "RUNNING", "message": "x" * 20_000}
    while not all(each.overflowed_at for each in server.hub.subscribers):
        proposals = [{"run": {"flowRunId": run}, "state": said, "force": True}] * 50
        await live(document, i=proposals)
        version += 50
    return version


FLOODED = "subscription($after: String) { transitions(after: $after) { cursor transitions { version message } } }"


async def test_a_client_that_pauses_reading_receives_everything(live: Ask, server: Listening) -> None:
    async with connected(server, max_queue=1) as socket:
        subscription = await socket.subscribe(FLOODED)
        await subscription.next()
        await server.hub.join()
        written = await flood(live, server)

        versions: list[int] = []
        while len(versions) < written:
            versions += [each["version"] for each in (await subscription.next())["transitions"]["transitions"]]

    assert versions == list(range(1, written + 1))


async def test_a_client_that_stays_behind_is_disconnected_with_a_cursor(live: Ask, server: Listening) -> None:
    async with connected(server, max_queue=1) as socket:
        subscription = await socket.subscribe(FLOODED)
        await subscription.next()
        await server.hub.join()
        written = await flood(live, server)
        server.hub.settings = replace(server.hub.settings, slow_subscriber_timeout_seconds=0)
        versions: list[int] = []
        while (message := await subscription.message())["type"] == "next":
            versions += [each["version"] for each in message["payload"]["data"]["transitions"]["transitions"]]
        (error,) = message["payload"]
        assert message["type"] == "error"
        assert error["extensions"]["code"] == "SLOW_CONSUMER"
        server.hub.settings = replace(server.hub.settings, slow_subscriber_timeout_seconds=60)

        again = await socket.subscribe(FLOODED, "2", after=error["extensions"]["cursor"])
        while len(versions) < written:
            versions += [each["version"] for each in (await again.next())["transitions"]["transitions"]]

    assert versions == list(range(1, written + 1))


async def test_at_shutdown_sockets_close_with_the_code_for_reconnection(live: Ask, server: Listening) -> None:
    async with connected(server) as socket:
        first, second = [await socket.subscribe(TRANSITIONS, key) for key in ("1", "2")]
        await first.next()
        await second.next()
        run = await make_flow_run(live)
        await propose(live, run, "RUNNING")
        await live.client.aclose()
        server.should_exit = True

        for subscription in (first, second):
            versions: list[int] = []
            while len(versions) < 2:
                versions += [each["version"] for each in (await subscription.next())["transitions"]["transitions"]]
            assert versions == [1, 2]
        assert await socket.closed() == 1012

"""Generated garbage over HTTP and WebSockets: every request is answered, and the server keeps running."""

import asyncio
import json
import logging
import string
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import orjson
import pytest
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from runstate.graphql.errors import Code
from tests.subscribing import PROTOCOL, Listening

CODES = {code.value for code in Code} - {Code.INTERNAL.value}
CLOSED_BY = {1000, 1003, 1007, 1009, 4400, 4401, 4406, 4409, 4429}
"""Close codes that are expected for garbage on a socket."""

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

PUNCTUATION = ["{", "}", "(", ")", "[", "]", ":", "!", "...", "#", "@skip", "@include", "$x", '"x"', '"""', "1", "-1"]
NAMED = ["query", "mutation", "subscription", "fragment", "on", "F", "Flow", "flows", "nodes", "id", "first", "where"]
WORDS = [*PUNCTUATION, *NAMED, "__typename", "__schema", "transitions", "cursor", "flowRuns", "edges", "true", "null"]
ASKED = (
    "{ __typename }",
    "query($x: Int) { flows(first: $x) { totalCount nodes { id } } }",
    "query($x: FlowRunWhere) { flowRuns(where: $x) { nodes { id } } }",
    "query($x: [ID!]!) { nodes(ids: $x) { id } }",
    "query($x: [RunGrouping!]!) { flowRunCounts(groupBy: $x) { count } }",
    "mutation($x: ProposeStateInput!) { proposeState(input: $x) { __typename } }",
    "mutation($x: CreateFlowInput!) { createFlow(input: $x) { __typename } }",
    "subscription($x: String) { transitions(after: $x) { cursor } }",
)
NAMES = ("eq", "in", "and", "not", "name", "id", "run", "flowRunId", "state", "type", "x")
DOCUMENTS = st.text(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.sampled_from(ASKED)


def text(said: Any) -> str:
    """Return a value as JSON; text that JSON cannot hold, such as lone surrogates, is included as it is."""
    if isinstance(said, dict):
        return "{" + ",".join(f"{text(name)}:{text(value)}" for name, value in said.items()) + "}"
    if isinstance(said, list):
        return "[" + ",".join(map(text, said)) + "]"
    return json.dumps(said, ensure_ascii=False)


NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=30) | st.sampled_from(["RUNNING", "x\0", "\ud800"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(NAMES), inner), max_leaves=15
)
REQUESTS = VALUES | st.fixed_dictionaries(
    {"query": DOCUMENTS},
    optional={
        "variables": VALUES | st.dictionaries(st.just("x"), VALUES),
        "operationName": VALUES,
        "extensions": VALUES,
    },
)
BODIES = (
    st.binary(max_size=200)
    | REQUESTS.map(lambda said: text(said).encode(errors="surrogatepass"))
    | st.integers(1, 60_000).map(lambda depth: b'{"query":"{ __typename }","variables":{"x":' + b"[" * depth)
)
HEADERS = st.dictionaries(
    st.sampled_from(["accept", "content-type", "x-request-id", "traceparent", "graphql-require-preflight", "origin"]),
    st.text(string.printable[:94], max_size=40)
    | st.sampled_from(["application/json", "*/*", "application/graphql-response+json;q=0.5", "text/event-stream;q=0"]),
)
TYPES = st.sampled_from(["connection_init", "subscribe", "subscribe", "complete", "ping", "pong", "next", "error"])
MESSAGES = (
    st.text(max_size=50)
    | st.binary(max_size=20)
    | VALUES.map(text)
    | st.fixed_dictionaries(
        {"type": TYPES | VALUES}, optional={"id": VALUES | st.sampled_from(["1", "2"]), "payload": REQUESTS}
    ).map(text)
)


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@pytest.fixture
def examples(caplog: pytest.LogCaptureFixture) -> Callable[..., Awaitable[None]]:
    """Return a function that runs a test with generated values while the server runs in the event loop."""

    async def run(test: Callable[..., Awaitable[None]], *strategies: Any) -> None:
        loop = asyncio.get_running_loop()

        @QUICK
        @given(st.tuples(*strategies))
        def one(values: tuple[Any, ...]) -> None:
            asyncio.run_coroutine_threadsafe(test(*values), loop).result(60)  # type: ignore[arg-type]

        with capture_logs() as logs:
            await asyncio.to_thread(one)
        assert [entry for entry in logs if entry["log_level"] in ("error", "critical")] == []
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

    return run


Examples = Callable[..., Awaitable[None]]


async def test_garbage_over_http_is_answered(server: Listening, examples: Examples) -> None:
    async with httpx.AsyncClient(timeout=30) as client:

        async def send(body: bytes, headers: dict[str, str], method: str) -> None:
            sent = {"content-type": "application/json", **headers}
            async with client.stream(method, f"http://{server.address}", content=body, headers=sent) as reply:
                assert reply.status_code < 500, (body, sent)
                if reply.headers["content-type"].startswith("text/event-stream"):
                    return
                said = orjson.loads(await reply.aread())
            assert {error["extensions"]["code"] for error in said.get("errors", ())} <= CODES

        await examples(send, BODIES, HEADERS, st.sampled_from(["POST", "POST", "GET", "PUT"]))


async def test_garbage_in_a_query_string_is_answered(server: Listening, examples: Examples) -> None:
    async with httpx.AsyncClient(timeout=30, headers={"GraphQL-Require-Preflight": "1"}) as client:

        async def send(parameters: dict[str, str]) -> None:
            reply = await client.get(f"http://{server.address}", params=parameters)
            assert reply.status_code < 500, parameters
            assert {error["extensions"]["code"] for error in reply.json().get("errors", ())} <= CODES

        names = st.sampled_from(["query", "variables", "operationName", "extensions", "x"])
        values = DOCUMENTS | VALUES.map(text) | st.text(max_size=30)
        await examples(send, st.dictionaries(names, values.map(lambda said: said.encode(errors="replace").decode())))


async def test_garbage_on_a_socket_is_answered_or_closes_it(server: Listening, examples: Examples) -> None:
    async def send(messages: list[str | bytes], first: list[str]) -> None:
        async with websockets.connect(f"ws://{server.address}", subprotocols=PROTOCOL) as connection:
            with suppress(websockets.ConnectionClosed):
                for message in [*first, *messages]:
                    await connection.send(
                        message if isinstance(message, bytes) else message.encode(errors="replace").decode()
                    )
                await connection.send('{"type":"ping"}')
                async with asyncio.timeout(30):
                    while '"pong"' not in (said := str(await connection.recv())):
                        assert '"INTERNAL"' not in said
        assert connection.close_code in CLOSED_BY

    first = st.sampled_from([[], ['{"type":"connection_init"}']])
    await examples(send, st.lists(MESSAGES, max_size=6), first)

"""Limits of requests: each limit is enforced, and documents of real clients are accepted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from starlette.routing import WebSocketRoute

from runstate.app import build_app
from runstate.graphql.transport.http import Endpoint
from runstate.graphql.validation.document_cache import MAX_CHARACTERS
from runstate.settings import Settings
from tests.client import Ask, asking, running
from tests.graphql.mutations import make_flow_run
from tests.node import BIN, Packages
from tests.subscribing import Socket, connected, listening
from tests.subscribing import asking as asking_live

RELAY = Path(__file__).parent / "relay"
ELSEWHERE = "203.0.113.7"
PROPOSE = "mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { __typename } }"
TRANSITIONS = "subscription { transitions { cursor } }"


@pytest.fixture
def kind() -> str:
    """Return `sqlite`: these tests do not depend on the database."""
    return "sqlite"


@asynccontextmanager
async def bounded(url: str, **settings: Any) -> AsyncIterator[Ask]:
    """Yield a client of an application with some settings."""
    app = build_app(Settings(database_url=url, services="off", **settings))
    async with running(app), asking(app) as ask:
        yield ask


async def refused(ask: Ask, document: str, **variables: Any) -> dict[str, Any]:
    """Return the extensions of the only error of a document that is refused."""
    body = await ask.raw(document, **variables)
    (error,) = body["errors"]
    assert "data" not in body
    assert "path" not in error
    extensions: dict[str, Any] = error["extensions"]
    assert extensions.pop("requestId")
    return extensions


async def cost(ask: Ask, document: str, **variables: Any) -> int:
    """Return the cost of a document, from its response."""
    body = {"query": document, "variables": variables}
    reply = await ask.client.post("/graphql", json=body, headers={"GraphQL-Cost": "report"})
    return int(reply.json()["extensions"]["cost"]["requested"])


async def seconds(ask: Ask, document: str) -> float:
    """Return the duration of a request."""
    began = time.perf_counter()
    await ask.raw(document)
    return time.perf_counter() - began


def nested(levels: int) -> str:
    """Return a document with this many nested fields."""
    return (
        "{ flows(first: 1) { nodes { "
        + "flowRuns(first: 1) { nodes { flow { " * ((levels - 3) // 3)
        + "id"
        + (" } } }" * ((levels - 3) // 3))
        + " } } }"
    )


EXCEEDED = [
    ("max_document_characters", 30, "characters", "{ __typename }".ljust(30), "{ __typename }".ljust(31), 31),
    ("max_document_tokens", 6, "tokens", "{ __typename b: __typename }", "{ __typename bc: __typename id }", None),
    ("max_depth", 6, "depth", nested(6), nested(9), 9),
    (
        "max_aliases",
        2,
        "aliases",
        "{ a: __typename b: __typename }",
        "{ a: __typename ...F ...F } fragment F on Query { b: __typename }",
        3,
    ),
    (
        "max_root_fields",
        2,
        "rootFields",
        "{ __typename ...F } fragment F on Query { __typename }",
        "{ __typename __typename ... { __typename } }",
        3,
    ),
    (
        "max_directives",
        1,
        "directives",
        "{ __typename @skip(if: true) }",
        "{ __typename @skip(if: true) ...F @include(if: true) } fragment F on Query { __typename }",
        2,
    ),
    (
        "max_list_items",
        2,
        "listItems",
        '{ nodes(ids: ["x", "y"]) { id } }',
        '{ nodes(ids: ["x", "y", "z"]) { id } }',
        3,
    ),
    ("max_cost", 21, "cost", "{ flows(first: 20) { nodes { id } } }", "{ flows(first: 21) { nodes { id } } }", 22),
]


@pytest.mark.parametrize(
    ("setting", "allowed", "limit", "within", "beyond", "found"),
    EXCEEDED,
    ids=lambda value: str(value) if isinstance(value, str) and "_limit" in value else "",
)
async def test_a_document_is_accepted_at_a_limit_and_refused_beyond_it(
    url: str, setting: str, allowed: int, limit: str, within: str, beyond: str, found: int | None
) -> None:
    async with bounded(url, **{setting: allowed}) as ask:
        await ask(within)
        for _ in range(2):
            expected = {"code": "LIMIT_EXCEEDED", "limit": limit, "allowed": allowed}
            assert await refused(ask, beyond) == (expected if found is None else {**expected, "found": found})


@pytest.mark.parametrize(
    ("document", "variables", "expected"),
    [
        ("{ __typename }", {}, 0),
        ("{ flowRunCount }", {}, 1),
        ("{ flows { nodes { id name } } }", {}, 1 + 50),
        (
            "{ flows(last: 7) { nodes { id } edges { cursor node { id } } pageInfo { hasNextPage } } }",
            {},
            1 + 7 + 7 + 1,
        ),
        ("query($n: Int) { flows(first: $n) { nodes { id } } }", {"n": 200}, 1 + 200),
        ("query($n: Int) { flows(first: $n) { nodes { id } } }", {}, 1 + 50),
        ("query($n: Int = 3) { flows(first: $n) { nodes { id } } }", {}, 1 + 3),
        ("{ flows(first: 10) { nodes { flowRuns(first: 5) { totalCount nodes { id } } } } }", {}, 1 + 10 * (1 + 1 + 5)),
        ("{ flows(first: 2) { ...C ...C } } fragment C on FlowConnection { nodes { id } }", {}, 1 + 2 + 2),
        (
            """query($n: Int) { flows(first: $n) { ...C } }
            fragment C on FlowConnection { nodes { flowRuns(first: $n) { nodes { id } } } }""",
            {"n": 3},
            1 + 3 * (1 + 1 + 3),
        ),
        ('{ nodes(ids: ["x", "y"]) { id } }', {}, 2),
        ("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ["x"] * 5}, 5),
        ('{ flowRun(id: "x") { history(last: 4) { id } } }', {}, 1 + 4),
        ("{ flowRunCounts(groupBy: []) { count } }", {}, 200),
        ("{ taskRunCounts(groupBy: [FLOW], first: 3) { flow { id } } }", {}, 3 * 2),
        ('{ flowRun(id: "x") { graph { nodes { runId } } } }', {}, 1 + 1 + 1000),
        ('{ flowRun(id: "x") { ... on Node { id } ... { flow { id } } } }', {}, 1 + 1),
    ],
    ids=lambda value: "" if isinstance(value, dict | int) else None,
)
async def test_a_response_contains_the_cost_of_its_document(
    ask: Ask, document: str, variables: dict[str, Any], expected: int
) -> None:
    for _ in range(2):
        assert await cost(ask, document, **variables) == expected


async def test_a_cost_above_half_of_the_limit_is_always_reported(url: str) -> None:
    async with bounded(url, max_cost=10) as ask:
        below, above = [await ask.raw("query($n: Int) { flows(first: $n) { nodes { id } } }", n=n) for n in (4, 5)]

    assert "extensions" not in below
    assert above["extensions"] == {"cost": {"requested": 6, "limit": 10}}


async def test_a_cost_beyond_the_limit_is_refused_whether_from_variables_or_defaults(ask: Ask) -> None:
    below = "flowRuns(first: $n) { nodes { states(first: $n) { nodes { id } } } }"
    document = f"query($n: Int) {{ flows(first: $n) {{ nodes {{ {below} }} }} }}"

    assert await cost(ask, document, n=30) == 1 + 30 * (2 + 30 * (2 + 30))
    assert (await refused(ask, document, n=200))["limit"] == "cost"
    assert (await refused(ask, document.replace("$n: Int", "$n: Int = 200")))["limit"] == "cost"


@pytest.mark.parametrize("levels", [18, 25, 60])
async def test_fragments_that_double_at_each_level_are_measured_quickly(ask: Ask, levels: int) -> None:
    chain = [f"fragment F{n} on Query{{...F{n + 1} ...F{n + 1}}}" for n in range(levels)]
    small = " ".join(["{...F0}", *chain, f"fragment F{levels} on Query{{__typename}}"])
    inner = "flowRuns{{nodes{{flow{{...F{0}}}}}}}"
    wide = [f"fragment F{n} on Flow{{a:{inner.format(n + 1)} b:{inner.format(n + 1)}}}" for n in range(levels)]
    large = " ".join(["{flows{nodes{...F0}}}", *wide, f"fragment F{levels} on Flow{{id}}"])
    await ask("{ __typename }")

    for document in (small, large):
        took = [await seconds(ask, f"{document}#{number}") for number in range(5)]
        assert min(took) < 0.05 * levels / 18


@pytest.mark.parametrize(
    "document",
    [
        "{flows{nodes{" + "id " * 4_000 + "}}}",
        "{flows{nodes{" + "flowRuns{totalCount}" * 900 + "}}}",
        "{flows{nodes{"
        + "".join(f"...F{n} " for n in range(300))
        + "}}}"
        + "".join(f"fragment F{n} on Flow{{id name}}" for n in range(300)),
        "{flows(where:" + "{and:[" * 190 + "]}" * 190 + "){totalCount}}",
        "".join(f"query Q{n}{{__typename}}" for n in range(800)),
        "".join(f"fragment F{n} on Flow{{...F{n + 1}}}" for n in range(600)) + "{flows{nodes{...F0}}}",
        "fragment F on Flow{...G} fragment G on Flow{...F} {flows{nodes{...F}}}",
    ],
    ids=["fields", "objects", "fragments", "conditions", "operations", "chain", "circle"],
)
async def test_no_document_occupies_the_server_for_a_second(ask: Ask, document: str) -> None:
    began = time.perf_counter()
    body = await ask.raw(document)

    assert time.perf_counter() - began < 1
    assert "INTERNAL" not in str(body)


async def test_lists_in_variables_are_measured_and_json_is_not(url: str) -> None:
    create = "mutation($i: CreateFlowRunInput!) { createFlowRun(input: $i) { __typename } }"
    flow = 'mutation { createFlow(input: {name: "etl"}) { ... on CreateFlowPayload { flow { id } } } }'
    where = "query($w: FlowRunWhere) { flowRunCount(where: $w) }"
    async with bounded(url, max_list_items=3) as ask:
        given = {"flowId": (await ask(flow))["createFlow"]["flow"]["id"], "parameters": {"items": list(range(100))}}
        assert await ask(create, i={**given, "tags": ["x"] * 3}) == {
            "createFlowRun": {"__typename": "CreateFlowRunPayload"}
        }
        assert (await refused(ask, create, i={**given, "tags": ["x"] * 4}))["limit"] == "listItems"
        deep = {"and": [{"or": [{"tags": {"all": ["x"] * 4}}]}]}
        assert (await refused(ask, where, w=deep))["found"] == 4


async def test_the_number_of_validation_errors_is_limited(ask: Ask) -> None:
    fields = await ask.raw("{ " + " ".join(f"f{n}" for n in range(20)) + " }")
    variables = await ask.raw(
        "query($s: [StateType!]) { __typename flowRunCount(where: {stateType: {in: $s}}) }", s=["x"] * 50
    )

    for body in (fields, variables):
        assert len(body["errors"]) == 6
        assert body["errors"][-1]["message"].startswith("Too many")


async def test_two_hundred_proposals_fit_in_a_request_as_variables_and_as_literals(ask: Ask) -> None:
    runs = [await make_flow_run(ask)] * 200
    inputs = [{"run": {"flowRunId": run}, "state": {"type": "RUNNING"}} for run in runs]
    written = ", ".join(f'{{run: {{flowRunId: "{run}"}}, state: {{type: RUNNING}}}}' for run in runs)

    assert len((await ask(PROPOSE, i=inputs))["proposeStates"]) == 200
    assert (
        len((await ask(f"mutation {{ proposeStates(inputs: [{written}]) {{ __typename }} }}"))["proposeStates"]) == 200
    )


async def test_graphiql_and_codegen_can_introspect_the_schema(ask: Ask, clients: Packages) -> None:
    said = await asyncio.to_thread(clients.run, BIN / "node", "introspection.mjs")

    for document in orjson.loads(said):
        assert (await ask(document))["__schema"]["queryType"]["name"] == "Query"


@pytest.mark.parametrize("file", sorted(RELAY.glob("*.graphql")), ids=lambda file: file.stem)
async def test_documents_of_relays_compiler_are_accepted(socket: Socket, file: Path) -> None:
    subscription = await socket.subscribe(file.read_text(), id=str(uuid4()), count=50, input={"id": str(uuid4())})

    await subscription.next()


async def test_introspection_and_suggestions_are_off_by_default_if_the_server_is_exposed(url: str) -> None:
    async with bounded(url, host=ELSEWHERE, insecure=True) as ask:
        for document in ("{ __schema { __typename } }", '{ __type(name: "Flow") { __typename } }'):
            assert "introspection has been disabled" in str(await ask.raw(document))
        assert "Did you mean" not in str(await ask.raw("{ flowz { id } }"))
        assert "Did you mean" not in str(
            await ask.raw("query($w: FlowRunWhere) { flowRunCount(where: $w) }", w={"nam": 1})
        )
        assert "Did you mean" not in str(await ask.raw("{ flowRunCount(where: {stateType: {eq: RUNING}}) }"))
        assert await ask("{ __typename }") == {"__typename": "Query"}
    async with bounded(url, host=ELSEWHERE, insecure=True, introspection=True, field_suggestions=True) as ask:
        await ask("{ __schema { queryType { name } } }")
        assert "Did you mean" in str(await ask.raw("{ flowz { id } }"))
    async with bounded(url, introspection=False, field_suggestions=False) as ask:
        assert "introspection has been disabled" in str(await ask.raw("{ __schema { queryType { name } } }"))


async def test_a_document_is_parsed_and_validated_once(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off"))
    (endpoint,) = {route.app for route in app.routes if isinstance(route, WebSocketRoute)}
    assert isinstance(endpoint, Endpoint)
    async with running(app), asking(app) as ask:
        for number in range(10):
            await ask("query($n: Int) { flows(first: $n) { totalCount } }", n=number + 1)
            assert "errors" in await ask.raw("{ nothing }")

    documents = endpoint.schema.documents
    assert (documents.misses, documents.hits) == (2, 18)


async def test_documents_are_cached_up_to_their_total_length(url: str) -> None:
    app = build_app(Settings(database_url=url, services="off"))
    (endpoint,) = {route.app for route in app.routes if isinstance(route, WebSocketRoute)}
    assert isinstance(endpoint, Endpoint)
    documents = endpoint.schema.documents
    texts = ["{ __typename } #" + letter * (MAX_CHARACTERS // 6) for letter in "abcdefgh"]
    for text in texts:
        documents.get(text)
        documents.get(texts[0])

    assert [text[-1] for text in documents.cached] == ["e", "f", "g", "h", "a"]
    assert documents.characters == sum(map(len, documents.cached)) <= MAX_CHARACTERS


async def test_operations_beyond_the_limit_are_refused_as_overloaded(url: str) -> None:
    async with bounded(url, max_concurrent_operations=3) as ask:
        asked = [ask.client.post("/graphql", json={"query": "{ flowRunCount }"}) for _ in range(30)]
        replies = await asyncio.gather(*asked)

    assert {reply.status_code for reply in replies} == {200, 503}
    for reply in replies:
        if reply.status_code == 503:
            assert reply.headers["retry-after"] == "1"
            assert reply.json()["errors"][0]["extensions"]["code"] == "OVERLOADED"


async def test_subscriptions_beyond_the_limit_are_refused_until_one_ends(url: str) -> None:
    async with listening(url, max_subscriptions=1) as server, connected(server) as socket:
        first = await socket.subscribe(TRANSITIONS, "1")
        await first.next()
        assert (await (await socket.subscribe(TRANSITIONS, "2")).error())["extensions"]["code"] == "OVERLOADED"
        async with httpx.AsyncClient() as client:
            events = {"accept": "text/event-stream"}
            reply = await client.post(f"http://{server.address}", json={"query": TRANSITIONS}, headers=events)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        await first.stop()
        async with asyncio.timeout(10):
            while (message := await (await socket.subscribe(TRANSITIONS, "3")).message())["type"] == "error":
                pass

    assert message["type"] == "next"


async def test_a_socket_has_a_limit_on_operations(url: str) -> None:
    async with listening(url, max_operations_per_socket=2) as server, connected(server) as socket:
        for key in ("1", "2"):
            await (await socket.subscribe(TRANSITIONS, key)).next()
        error = await (await socket.subscribe("{ __typename }", "3")).error()

    assert error["extensions"]["code"] == "OVERLOADED"


async def test_subscribers_that_wait_or_have_left_hold_no_room_for_large_answers(url: str) -> None:
    document = "subscription($id: ID!) { flowRun(id: $id) { parameters } }"
    async with listening(url, max_answer_bytes=600_000) as server, asking_live(server) as ask:
        run = await make_flow_run(ask, parameters={"a": "x" * 500_000})
        async with connected(server, max_size=None) as socket:
            for key in "abcdef":
                waiting = await socket.subscribe(document, key, id=run)
                assert await waiting.next()
        async with connected(server, max_size=None) as socket:
            for key in "abcdef":
                leaving = await socket.subscribe(document, key, id=run)
                assert await leaving.next()
                await leaving.stop()

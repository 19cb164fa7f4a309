"""Documents with several operations: the named operation is executed, regardless of earlier executions."""

from itertools import count, permutations
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest
from starlette.applications import Starlette
from strawberry.schema.exceptions import CannotGetOperationTypeError

from runstate.app import clock
from runstate.graphql.context import Context
from runstate.graphql.execution.operation import Schema
from runstate.graphql.schema import build_schema
from runstate.graphql.transport.sse import body_of
from runstate.graphql.types.scalars import dumped
from tests.client import Ask
from tests.subscribing import Listening, connected

OPERATIONS = {
    "Read": "query Read { __typename }",
    "Delete": "mutation Delete($id: ID!) { deleteFlow(id: $id) { __typename } }",
    "Create": "mutation Create($input: CreateFlowInput!) { createFlow(input: $input) { ...Created } }"
    " fragment Created on CreateFlowPayload { created }",
    "Again": "mutation Again($input: CreateFlowInput!) { createFlow(input: $input) { __typename } }",
}
NUMBERS = count(1)
REQUESTS = 200
FLOWS = "{ flows { totalCount } }"


def variables() -> dict[str, Any]:
    """Return variables for all operations."""
    return {"id": str(UUID(int=1)), "input": {"name": f"flow {next(NUMBERS)}"}}


def documents() -> list[str]:
    """Return documents with one to three operations, in all orders."""
    orders = [order for size in (1, 2, 3) for order in permutations(OPERATIONS.values(), size)]
    return [" ".join(order) for order in orders]


async def answer(schema: Schema, app: Starlette, document: str, name: str | None) -> bytes:
    """Return the answer to an operation, or the name of the error that refuses it."""
    context = Context(app.state.database, clock, request_id="request", batcher=app.state.batcher)
    try:
        result = await schema.execute(document, variables(), context, operation_name=name)
    except CannotGetOperationTypeError as error:
        return type(error).__name__.encode()
    return dumped(body_of(result))


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("seed", range(2))
async def test_the_fast_path_and_graphql_core_choose_the_same_operation(
    app: Starlette, ask: Ask, seed: int, kind: str
) -> None:
    random, fast, stock = Random(seed), build_schema(), build_schema(plans=False)
    requests = [(document, name) for document in documents() for name in (None, "", "Unknown", *OPERATIONS)]

    for document, name in random.choices(requests, k=REQUESTS):
        before = (await ask(FLOWS))["flows"]["totalCount"]
        got = await answer(fast, app, document, name)
        created = (await ask(FLOWS))["flows"]["totalCount"] - before

        assert got == await answer(stock, app, document, name), (document, name)
        if name is None and document.count("{ __typename }") + document.count("created") > 1:
            assert b'"BAD_USER_INPUT"' in got
            assert created == 0
    assert sum(each is not None for each in fast.fast_paths.values()) > 10


TWO = f"{OPERATIONS['Create']} {OPERATIONS['Again']}"


async def post(server: Listening, ask: Ask, body: dict[str, Any]) -> Any:
    """Send an operation as JSON."""
    return (await ask.client.post("/graphql", json=body)).json()


async def events(server: Listening, ask: Ask, body: dict[str, Any]) -> Any:
    """Send an operation that is answered with events."""
    text = (await ask.client.post("/graphql", json=body, headers={"Accept": "text/event-stream"})).text
    return orjson.loads(text.split("data: ")[1].split("\n")[0])


async def message(server: Listening, ask: Ask, body: dict[str, Any]) -> Any:
    """Send an operation over a WebSocket."""
    async with connected(server) as socket:
        await socket.say({"type": "subscribe", "id": "1", "payload": body})
        reply = await socket.hear()
        return {"errors": reply["payload"]} if reply["type"] == "error" else reply["payload"]


@pytest.mark.parametrize("name", ["Create", "Again"])
async def test_two_mutations_without_a_name_are_refused_on_every_transport(
    server: Listening, live: Ask, name: str
) -> None:
    for send in (post, events, message, post):
        for operation_name in (None, name, None):
            body = {"query": TWO, "variables": variables(), "operationName": operation_name}
            before = (await live(FLOWS))["flows"]["totalCount"]
            reply = await send(server, live, body)
            created = (await live(FLOWS))["flows"]["totalCount"] - before

            assert ("errors" in reply, created) == ((False, 1) if operation_name else (True, 0)), (send, reply)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_two_queries_without_a_name_are_refused_with_get(ask: Ask, kind: str) -> None:
    parameters = {"query": "query A { __typename } query B { flows { totalCount } }"}
    headers = {"GraphQL-Require-Preflight": "1"}

    for name, data in (("A", {"__typename": "Query"}), (None, None), ("B", {"flows": {"totalCount": 0}}), (None, None)):
        given = {**parameters, "operationName": name} if name else parameters
        body = (await ask.client.get("/graphql", params=given, headers=headers)).json()
        assert body.get("data") == data

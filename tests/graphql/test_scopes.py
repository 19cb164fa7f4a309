"""Scopes of keys: checked before execution, by the root fields of the requested operation."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
import pytest
from graphql import GraphQLSchema

from runstate.core.access.credentials import Principal
from runstate.database import Database
from runstate.documents.access import Scope
from runstate.errors import Forbidden
from runstate.graphql.schema import build_schema
from runstate.graphql.types.fields import DEFINED_BY, NEEDS, metadata
from runstate.graphql.validation.scopes import check
from runstate.rows.base import needs
from runstate.rows.variables import Variable
from tests.client import Ask
from tests.credentials import Keys, asking_with, connected_with
from tests.graphql.mutations import create, make_flow, make_flow_run, propose
from tests.subscribing import Listening, listening

SCHEMA: GraphQLSchema = build_schema()._schema  # noqa: SLF001 - it has no public name
assert SCHEMA.mutation_type
MUTATIONS = SCHEMA.mutation_type.fields
Declare = Callable[[str, str, Scope], None]
ORDER = ["read", "propose", "admin"]
DELETE = 'mutation { deleteFlow(id: "x") { __typename } }'
CREATE = 'mutation { createFlow(input: { name: "etl" }) { __typename } }'
ON_MUTATION = "fragment g on Mutation"
SECURITY = (Path(__file__).parent.parent.parent / "docs/security.md").read_text()


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server that requires a key."""
    async with listening(url, authentication="keys") as server:
        yield server


@pytest.fixture
async def held(server: Listening, database: Database) -> AsyncIterator[Mapping[str, Ask]]:
    """Yield clients with a key for each scope, by the name of the scope."""
    keys = Keys(database)
    async with AsyncExitStack() as clients:
        yield {
            scope: await clients.enter_async_context(asking_with(server, await keys.make(scope, scope)))
            for scope in ORDER
        }


def code(body: Any) -> str | None:
    errors = body.get("errors")
    return str(errors[0]["extensions"]["code"]) if errors else None


def asking_for(name: str) -> str:
    """Return a document with one mutation, with variables for its required arguments."""
    arguments = MUTATIONS[name].args
    declared = ", ".join(f"${each}: {argument.type}" for each, argument in arguments.items())
    given = ", ".join(f"{each}: ${each}" for each in arguments)
    return f"mutation({declared}) {{ {name}({given}) {{ __typename }} }}"


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_documents_its_scope(name: str) -> None:
    needs = metadata(MUTATIONS[name])[NEEDS]

    assert needs in {"propose", "admin"}
    assert (MUTATIONS[name].description or "").endswith(f"Needs the scope `{needs}`.")


def test_the_page_on_security_lists_the_mutations_of_propose() -> None:
    (paragraph,) = re.findall(r"^\| `propose` \| (.*) \|$", SECURITY, re.MULTILINE)
    proposing = {name for name, field in MUTATIONS.items() if metadata(field)[NEEDS] == "propose"}

    assert set(re.findall(r"`(\w+)`", paragraph)) == proposing


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_key_with_the_scope_read_allows_no_mutation(held: Mapping[str, Ask]) -> None:
    for name in MUTATIONS:
        assert code(await held["read"].raw(asking_for(name))) == "FORBIDDEN", name
    assert code(await held["read"].raw("mutation { __typename }")) == "FORBIDDEN"
    assert await held["read"]("{ flows { totalCount } }") == {"flows": {"totalCount": 0}}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_key_with_the_scope_propose_allows_orchestration(held: Mapping[str, Ask]) -> None:
    run = await make_flow_run(held["propose"])
    answer = await propose(held["propose"], run, "RUNNING")

    assert answer["status"] == "ACCEPT"
    for name, field in MUTATIONS.items():
        allowed = code(await held["propose"].raw(asking_for(name))) != "FORBIDDEN"
        assert allowed == (metadata(field)[NEEDS] == "propose"), name


async def test_a_key_with_the_scope_admin_allows_everything(held: Mapping[str, Ask]) -> None:
    flow = await make_flow(held["admin"])
    deleted = await held["admin"]("mutation($id: ID!) { deleteFlow(id: $id) { __typename } }", id=flow)

    assert deleted == {"deleteFlow": {"__typename": "DeletePayload"}}
    for name in MUTATIONS:
        assert code(await held["admin"].raw(asking_for(name))) != "FORBIDDEN", name


WAYS = {
    "alias": 'mutation { flow: deleteFlow(id: "x") { __typename } }',
    "fragment": f"mutation {{ ...f }} fragment f on Mutation {{ ...g }} {DELETE.replace('mutation', ON_MUTATION)}",
    "inline": 'mutation { ... { ... on Mutation { deleteFlow(id: "x") { __typename } } } }',
    "beside": 'mutation { createFlow(input: { name: "etl" }) { __typename } deleteFlow(id: "x") { __typename } }',
    "skipped": 'mutation { __typename deleteFlow(id: "x") @skip(if: true) { __typename } }',
    "chosen": f"query Read {{ __typename }} {DELETE.replace('mutation', 'mutation Chosen')}",
}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("way", WAYS)
async def test_no_form_of_a_document_avoids_the_check(held: Mapping[str, Ask], way: str) -> None:
    said = {"query": WAYS[way], "operationName": "Chosen" if way == "chosen" else None}

    for scope, refused in (("read", True), ("propose", True), ("admin", False)):
        body = (await held[scope].client.post("/graphql", json=said)).json()
        assert (code(body) == "FORBIDDEN") == refused
    assert await held["read"]("{ flows { nodes { name } } }") == (
        {"flows": {"nodes": [{"name": "etl"}]}} if way == "beside" else {"flows": {"nodes": []}}
    )


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_only_the_scope_of_the_requested_operation_counts(held: Mapping[str, Ask]) -> None:
    said = {
        "query": f"query Read {{ __typename }} {DELETE.replace('mutation', 'mutation Not')}",
        "operationName": "Read",
    }

    assert (await held["read"].client.post("/graphql", json=said)).json()["data"] == {"__typename": "Query"}


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_missing_scope_is_an_error_with_a_status(held: Mapping[str, Ask]) -> None:
    accept = {"Accept": "application/graphql-response+json"}
    reply = await held["read"].client.post("/graphql", json={"query": CREATE}, headers=accept)
    legacy = await held["read"].client.post("/graphql", json={"query": CREATE})

    assert (reply.status_code, legacy.status_code) == (403, 200)
    assert reply.json()["errors"][0]["message"] == "This needs the scope `propose`; read has `read`."
    assert "data" not in reply.json()


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_scopes_are_checked_over_websockets_and_server_sent_events(server: Listening, database: Database) -> None:
    key = await Keys(database).make("reader", "read")
    async with connected_with(server, key) as socket:
        assert (await (await socket.subscribe(CREATE)).error())["extensions"]["code"] == "FORBIDDEN"
        assert await (await socket.subscribe("{ __typename }", "2")).next() == {"__typename": "Query"}
        subscription = await socket.subscribe("subscription { transitions { cursor } }", "3")
        assert (await subscription.next())["transitions"]["cursor"]
    async with asking_with(server, key, Accept="text/event-stream") as ask:
        said = (await ask.client.post("/graphql", json={"query": CREATE})).text
    assert code(orjson.loads(said.split("data: ")[1].split("\n")[0])) == "FORBIDDEN"


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_without_authentication_every_mutation_is_allowed(ask: Ask) -> None:
    assert (await create(ask, "flow", name="etl"))["created"]
    assert code(await ask.raw(DELETE)) is None


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Return a function that declares that a field of a type needs a scope."""

    def declare(kind: str, name: str, scope: Scope) -> None:
        fields: Any = SCHEMA.get_type(kind)
        field = fields.fields[name].extensions[DEFINED_BY]
        monkeypatch.setattr(field, "metadata", {**field.metadata, NEEDS: scope})

    return declare


FIELDS = {
    "query": ("Query", "flowRuns", "{ flowRuns { totalCount } }"),
    "type": ("FlowRun", "parameters", "{ flowRuns { nodes { parameters } } }"),
    "alias": ("FlowRun", "parameters", "{ flowRuns { edges { node { name: parameters } } } }"),
    "fragment": ("FlowRun", "parameters", "{ flowRuns { nodes { ...f } } } fragment f on FlowRun { parameters }"),
    "fragments": (
        *("FlowRun", "parameters"),
        "{ flowRuns { nodes { ...f } } } fragment f on Run { ...g } fragment g on FlowRun { parameters }",
    ),
    "inline": ("FlowRun", "parameters", '{ node(id: "x") { id ... on FlowRun { parameters } } }'),
    "skipped": ("FlowRun", "parameters", "{ flowRuns { nodes { id parameters @skip(if: true) } } }"),
    "interface": ("FlowRun", "labels", '{ node(id: "x") { id ... on Run { labels } } }'),
    "of interface": ("Run", "labels", '{ node(id: "x") { id ... on Run { labels } } }'),
    "nested": ("Flow", "labels", "{ flowRuns { nodes { flow { labels } } } }"),
    "computed": ("FlowRun", "estimatedRunTimeSeconds", "{ flowRuns { nodes { estimatedRunTimeSeconds } } }"),
    "page": ("FlowConnection", "totalCount", "{ flows { totalCount } }"),
    "payload": (
        "CreateFlowPayload",
        "created",
        CREATE.replace("__typename", "... on CreateFlowPayload { created }"),
    ),
    "subscription": ("Subscription", "transitions", "subscription { transitions { cursor } }"),
    "event": ("TransitionBatch", "cursor", "subscription { transitions { cursor } }"),
}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("place", FIELDS)
async def test_a_field_anywhere_can_need_a_scope(url: str, database: Database, declare: Declare, place: str) -> None:
    owner, name, document = FIELDS[place]
    declare(owner, name, Scope.ADMIN)

    async with listening(url, authentication="keys") as server:
        for scope in ORDER:
            key = await Keys(database).make(scope, scope)
            async with asking_with(server, key) as ask, connected_with(server, key) as socket:
                subscribes = document.startswith("subscription")
                for _ in range(2):
                    message = await (await socket.subscribe(document, scope)).message()
                    refused = message["type"] == "error" and message["payload"][0]["extensions"]["code"] == "FORBIDDEN"
                    assert refused == (scope != "admin"), message
                    if subscribes:
                        break
                    assert (code(await ask.raw(document)) == "FORBIDDEN") == (scope != "admin")
                assert code(await ask.raw("{ flowRuns { nodes { id } } }")) == (
                    "FORBIDDEN" if place == "query" and scope != "admin" else None
                )


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_column_that_needs_a_scope_is_refused_without_it(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Variable.__table__.c.value, "info", needs(Scope.ADMIN))

    async with listening(url, authentication="keys") as server:
        async with asking_with(server, await Keys(database).make("reader", "read")) as ask:
            assert code(await ask.raw("{ variables { nodes { name } } }")) is None
            assert code(await ask.raw("{ variables { nodes { value } } }")) == "FORBIDDEN"
        async with asking_with(server, await Keys(database).make("admin", "admin")) as ask:
            assert code(await ask.raw("{ variables { nodes { value } } }")) is None


class Further(StrEnum):
    """A scope that is not part of the hierarchy."""

    SECRETS = "secrets"


SECRETS: Any = Further.SECRETS


@pytest.mark.parametrize(
    ("scopes", "missing"),
    [
        ([Scope.READ], "`propose`, `secrets`; somebody has `read`"),
        ([Scope.ADMIN], "`secrets`; somebody has `admin`"),
        ([SECRETS], "`propose`; somebody has `secrets`"),
        ([Scope.READ, SECRETS], "`propose`; somebody has `read`, `secrets`"),
        ([], "`propose`, `secrets`; somebody has `nothing`"),
        ([Scope.PROPOSE, SECRETS], None),
        ([*Scope, SECRETS], None),
    ],
)
def test_a_scope_outside_the_hierarchy_must_be_granted_itself(scopes: list[Scope], missing: str | None) -> None:
    principal = Principal("somebody", scopes)

    if missing is None:
        check(frozenset({Scope.READ, Scope.PROPOSE, SECRETS}), principal)
    else:
        with pytest.raises(Forbidden) as refused:
            check(frozenset({Scope.READ, Scope.PROPOSE, SECRETS}), principal)
        assert refused.value.message == f"This needs the scope {missing}."

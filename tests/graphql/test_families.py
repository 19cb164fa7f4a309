"""The contract of all families: creating, reading, listing, filtering, sorting, updating and deleting their objects.

A family's own tests are about its rules only. A new table needs a line in FAMILIES.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import uuid4

import pytest
from graphql import (
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
)

from runstate.graphql.schema import build_schema
from runstate.graphql.types.derive import tables
from runstate.rows import Row
from tests.client import Ask
from tests.graphql.mutations import make_flow, make_flow_run

SCHEMA: GraphQLSchema = build_schema()._schema  # noqa: SLF001 it has no public name
UNKNOWN: Final = "01890000-0000-7000-8000-000000000000"
PAIRS: Final = 12
"""Number of times that two conflicting requests are sent concurrently."""


class Family(NamedTuple):
    """A valid object of a family, and the answer to a second one with its key."""

    fields: Mapping[str, Any]
    existing: str = "return"
    """`return` or `update` the existing object, `refuse` the new one, or `none`: each creation makes an object."""
    changes: Mapping[str, Any] = MappingProxyType({})
    """Fields of an update; empty to skip the update."""
    key: str = "name"
    """The unique field of a client's choice."""
    overwritten: Mapping[str, Any] = MappingProxyType({})
    """Fields with which a second creation updates the existing object."""
    checked: bool = True
    """Whether objects refer to existing objects only."""


FAMILIES: Final[dict[str, Family]] = {
    "Artifact": Family(
        {"key": "report", "type": "markdown", "data": "# Report", "metadata": {"a": "b"}},
        "none",
        {"data": {"n": 1}, "description": "text"},
        key="key",
        checked=False,
    ),
    "ConcurrencyLimit": Family({"name": "api", "limit": 2}, "update", {"limit": 3}, overwritten={"limit": 4}),
    "Deployment": Family(
        {"name": "nightly", "flowId": "a flow", "tags": ["a", "a", "b"], "parameters": {"n": 1}},
        "update",
        {"paused": True, "tags": ["c"]},
        overwritten={"description": "again"},
    ),
    "Flow": Family({"name": "etl", "tags": ["a", "a", "b"], "labels": {"team": "x"}}, "return", {"tags": ["c"]}),
    "FlowRun": Family(
        {"flowId": "a flow", "name": "run", "tags": ["a", "a", "b"], "idempotencyKey": "k"},
        "return",
        {"name": "other", "tags": []},
        key="idempotencyKey",
    ),
    "FlowRunInput": Family({"flowRunId": "a flow run", "key": "k", "value": {"n": 1}}, "return", key="key"),
    "SavedSearch": Family({"name": "late runs"}, "update"),
    "TaskRun": Family(
        {"flowRunId": "a flow run", "taskKey": "t", "dynamicKey": "0", "name": "run", "tags": ["a", "a", "b"]},
        "return",
        {"name": "other"},
        key="dynamicKey",
    ),
    "Variable": Family(
        {"name": "v", "value": [1, None], "tags": ["a", "a", "b"]},
        "refuse",
        {"value": None},
        overwritten={"overwrite": True, "value": 7},
    ),
    "WorkPool": Family({"name": "pool", "concurrencyLimit": 2}, "refuse", {"description": "x", "concurrencyLimit": 3}),
}
WITHOUT: Final = {
    "ArtifactCollection": "created with their first artifact",
    "Automation": "its trigger and actions are checked together: tests/oracle/test_automations.py",
    "AutomationActionRun": "written for firings",
    "AutomationBucket": "written by the evaluator",
    "AutomationEventFollower": "written by the evaluator",
    "AutomationFiring": "written by the evaluator",
    "AutomationRelatedResource": "written with their automation",
    "BlockDocument": "encrypted, see the tests of blocks",
    "BlockDocumentReference": "written with their document",
    "BlockSchema": "found by checksum",
    "BlockSchemaReference": "written with their schema",
    "BlockType": "three come with the server",
    "ConcurrencyLease": "acquired and released",
    "Configuration": "set by key",
    "ConcurrencyWaiter": "proposals that were delayed",
    "CompositeTriggerChildFiring": "written by the evaluator",
    "CsrfToken": "a secret of its client",
    "DeploymentSchedule": "created inside an input of its deployment: test_deployment_schedules.py",
    "DeploymentVersion": "kept when a deployment changes",
    "Event": "emitted in bulk: test_events.py",
    "FlowRunState": "proposed",
    "Log": "written in bulk",
    "TaskRunState": "proposed",
    "WorkQueue": "each pool has one from the start: test_work_pools.py",
    "RunClaim": "made by claimFlowRuns: test_claims.py",
    "Worker": "created by heartbeats: test_work_pools.py",
}
"""Public tables whose rows clients do not create."""

UPDATED: Final = [name for name, family in FAMILIES.items() if family.changes]
LISTED: Final = [name for name in FAMILIES if name != "FlowRunInput"]
every = pytest.mark.parametrize("name", FAMILIES)
updated = pytest.mark.parametrize("name", UPDATED)
listed = pytest.mark.parametrize("name", LISTED)


def camel(name: str) -> str:
    """Return the name of a field with objects of a type."""
    return name[0].lower() + name[1:]


def plural(name: str) -> str:
    """Return the name of the list of a type's objects."""
    return camel(name) + ("es" if name.endswith("ch") else "s")


def members(name: str) -> dict[str, Any]:
    """Return the members of an input, by name."""
    found = SCHEMA.get_type(name)
    assert isinstance(found, GraphQLInputObjectType)
    return dict(found.fields)


def selection(name: str) -> str:
    """Return a selection of all leaves of a type, except those that follow the clock."""
    found = SCHEMA.get_type(name)
    assert isinstance(found, GraphQLObjectType)
    leaves = [key for key, field in found.fields.items() if not field.args and _is_leaf(get_named_type(field.type))]
    return " ".join(each for each in leaves if not each.startswith("estimated"))


def _is_leaf(found: GraphQLNamedType) -> bool:
    return is_leaf_type(found)


async def with_references(ask: Ask, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields that refer to objects that exist."""
    makers: dict[str, Any] = {"a flow": make_flow, "a flow run": make_flow_run}
    return {
        key: await makers[value](ask) if isinstance(value, str) and value in makers else value
        for key, value in fields.items()
    }


async def send(ask: Ask, verb: str, name: str, fields: Mapping[str, Any]) -> Any:
    """Send a creation or an update; return the payload or the problem."""
    kind = f"{verb[0].upper()}{verb[1:]}{name}"
    object_ = f"{camel(name)} {{ {selection(name)} }}"
    created = "created " if verb == "create" else ""
    document = (
        f"mutation($input: {kind}Input!) {{ it: {verb}{name}(input: $input) "
        f"{{ {problems(kind)} ... on {kind}Payload {{ {created}{object_} }} }} }}"
    )
    return (await ask(document, input=dict(fields)))["it"]


def problems(kind: str) -> str:
    """Return a selection of the problems that a mutation can return."""
    union = SCHEMA.get_type(f"{kind}Result")
    assert isinstance(union, GraphQLUnionType)
    details = {"InvalidInput": "path", "NotFound": "missingId", "NameTaken": "takenBy: id path"}
    found = [f"... on {name} {{ {details[name]} }}" for each in union.types if (name := each.name) in details]
    return " ".join(("__typename ... on Problem { code message }", *found))


async def make(ask: Ask, name: str, more: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Create the object of a family; return it."""
    fields = await with_references(ask, FAMILIES[name].fields)
    answer = await send(ask, "create", name, {**fields, **more})
    assert answer.get("created") is True, answer
    return answer[camel(name)]


async def delete(ask: Ask, name: str, id: str) -> Any:
    """Delete an object; return the payload or the problem."""
    fields = "__typename ... on DeletePayload { deletedId } ... on NotFound { missingId } ... on Problem { code }"
    return (await ask(f"mutation($id: ID!) {{ it: delete{name}(id: $id) {{ {fields} }} }}", id=id))["it"]


def reference(name: str, id: str) -> dict[str, Any]:
    """Return the member of an update that names the object."""
    return {"by": {"id": id}} if "by" in members(f"Update{name}Input") else {"id": id}


def differing(fields: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object that are not as given; tags are kept once each."""
    # Deployments keep tags as they are; they are the rows with a flow and parameters of their own.
    once = "enforceParameterSchema" not in found
    expected = {key: list(dict.fromkeys(value)) if key == "tags" and once else value for key, value in fields.items()}
    return {key: found[key] for key, value in expected.items() if key in found and found[key] != value}


def test_every_public_table_has_a_family() -> None:
    public = {row.__name__ for row in tables(Row) if not row.__private__}

    assert public == FAMILIES.keys() | WITHOUT.keys()


@every
async def test_an_object_is_created_and_read(ask: Ask, name: str) -> None:
    made = await make(ask, name)

    assert differing({key: value for key, value in FAMILIES[name].fields.items() if not key.endswith("Id")}, made) == {}
    if name in LISTED and name != "WorkPool":  # its `status` has another type than that of other nodes
        document = f"query($id: ID!) {{ node(id: $id) {{ ... on {name} {{ {selection(name)} }} }} }}"
        assert (await ask(document, id=made["id"]))["node"] == made


@listed
async def test_objects_are_listed_and_filtered(ask: Ask, name: str) -> None:
    made = await make(ask, name)
    document = (
        f"query($where: {name}Where) {{ it: {plural(name)}(where: $where) "
        f"{{ totalCount nodes {{ {selection(name)} }} }} }}"
    )

    assert (await ask(document))["it"] == {"totalCount": 1, "nodes": [made]}
    assert (await ask(document, where={"id": {"eq": made["id"]}}))["it"]["nodes"] == [made]
    assert (await ask(document, where={"id": {"eq": UNKNOWN}}))["it"] == {"totalCount": 0, "nodes": []}
    assert (await ask(document, where={"id": {"eq": "malformed"}}))["it"] == {"totalCount": 0, "nodes": []}


@listed
async def test_objects_are_sorted_by_every_order(ask: Ask, name: str) -> None:
    first = await make(ask, name)
    key = FAMILIES[name].key
    second = await make(ask, name, {key: f"{FAMILIES[name].fields[key]}-2"})
    document = (
        f"query($by: [{name}OrderBy!]) {{ it: {plural(name)}(orderBy: $by, first: 1) "
        "{ nodes { id } pageInfo { endCursor } } }"
    )
    for member in members(f"{name}OrderBy"):
        for direction in ("ASC", "DESC"):
            by = [{member: direction}]
            page = (await ask(document, by=by))["it"]
            following = document.replace("first: 1", f'first: 1, after: "{page["pageInfo"]["endCursor"]}"')
            rest = (await ask(following, by=by))["it"]
            assert {page["nodes"][0]["id"], rest["nodes"][0]["id"]} == {first["id"], second["id"]}, member


@updated
async def test_an_update_changes_only_the_given_fields(ask: Ask, name: str) -> None:
    made = await make(ask, name)
    answer = (await send(ask, "update", name, {**reference(name, made["id"]), **FAMILIES[name].changes}))[camel(name)]

    assert answer["updated"] > made["updated"]
    assert answer == made | dict(FAMILIES[name].changes) | {"updated": answer["updated"]}


@updated
async def test_an_update_without_changes_writes_nothing(ask: Ask, name: str) -> None:
    made = await make(ask, name)
    answer = await send(ask, "update", name, reference(name, made["id"]))

    assert answer[camel(name)] == made


@updated
async def test_null_is_a_value_of_nullable_fields_only(ask: Ask, name: str) -> None:
    made = await make(ask, name)
    described = SCHEMA.get_type(name)
    assert isinstance(described, GraphQLObjectType)
    for member in members(f"Update{name}Input").keys() - {"id", "by", "slotDecayPerSecond", "globalConcurrencyLimitId"}:
        answer = await send(ask, "update", name, reference(name, made["id"]) | {member: None})
        if isinstance(described.fields[member].type, GraphQLNonNull):
            assert (answer["__typename"], answer["path"]) == ("InvalidInput", [member]), answer
        else:
            assert answer["__typename"] == f"Update{name}Payload", answer


@updated
async def test_an_unknown_object_is_not_updated(ask: Ask, name: str) -> None:
    unknown = await send(ask, "update", name, {**reference(name, UNKNOWN), **FAMILIES[name].changes})
    malformed = await send(ask, "update", name, {**reference(name, "malformed"), **FAMILIES[name].changes})

    assert (unknown["__typename"], unknown["missingId"]) == ("NotFound", UNKNOWN)
    assert (malformed["__typename"], malformed["message"]) == ("InvalidInput", "The value is not a valid UUID.")
    assert malformed["path"][-1] == "id"


@every
async def test_a_taken_key_is_handled_as_declared(ask: Ask, name: str) -> None:
    made = await make(ask, name)
    family = FAMILIES[name]
    fields = dict(family.fields) | {key: made[key] for key in ("flowId", "flowRunId") if key in family.fields}
    again = await send(ask, "create", name, fields)

    if family.existing == "none":
        assert again["created"] is True
        assert again[camel(name)]["id"] != made["id"]
    elif family.existing == "refuse":
        assert (again["__typename"], again["takenBy"], again["path"]) == ("NameTaken", made["id"], [family.key])
    else:
        assert again["created"] is False
        assert again[camel(name)]["id"] == made["id"]
    if family.overwritten:
        answer = (await send(ask, "create", name, {**fields, **family.overwritten}))[camel(name)]
        assert answer["id"] == made["id"]
        assert differing(family.overwritten, answer) == {}


@every
async def test_eight_concurrent_creations_of_a_key_make_one_object(ask: Ask, name: str) -> None:
    fields = await with_references(ask, FAMILIES[name].fields)
    answers = await asyncio.gather(*(send(ask, "create", name, fields) for _ in range(8)))

    made = [each[camel(name)]["id"] for each in answers if camel(name) in each]
    taken = [each["takenBy"] for each in answers if each["__typename"] == "NameTaken"]
    objects = 8 if FAMILIES[name].existing == "none" else 1
    assert len({*made, *taken}) == objects
    assert sum(each.get("created", False) for each in answers) == objects
    assert len(made) == (1 if FAMILIES[name].existing == "refuse" else 8)


@pytest.mark.parametrize("name", ["Deployment", "Flow", "Variable"])
async def test_eight_concurrent_renames_to_one_name_give_it_to_one_object(ask: Ask, name: str) -> None:
    fields = await with_references(ask, FAMILIES[name].fields)
    made = [(await send(ask, "create", name, fields | {"name": f"n-{n}"}))[camel(name)]["id"] for n in range(8)]
    answers = await asyncio.gather(
        *(send(ask, "update", name, reference(name, each) | {"name": "same"}) for each in made)
    )

    (winner,) = [each[camel(name)]["id"] for each in answers if camel(name) in each]
    assert [each["takenBy"] for each in answers if each["__typename"] == "NameTaken"] == [winner] * 7


@every
async def test_a_dangling_reference_is_not_found(ask: Ask, name: str) -> None:
    for member, field in members(f"Create{name}Input").items():
        if not member.endswith("Id") or str(get_nullable_type(field.type)) != "ID":
            continue
        fields = await with_references(ask, FAMILIES[name].fields)
        answer = await send(ask, "create", name, fields | {FAMILIES[name].key: str(uuid4()), member: UNKNOWN})
        malformed = await send(ask, "create", name, fields | {member: "malformed"})
        if FAMILIES[name].checked:
            assert (answer["__typename"], answer["missingId"]) == ("NotFound", UNKNOWN), member
        else:
            assert answer[camel(name)][member] == UNKNOWN
        assert (malformed["__typename"], malformed["path"]) == ("InvalidInput", [member])


@every
async def test_an_object_is_deleted_once(ask: Ask, name: str) -> None:
    made = await make(ask, name)

    assert await delete(ask, name, made["id"]) == {"__typename": "DeletePayload", "deletedId": made["id"]}
    assert await delete(ask, name, made["id"]) == {
        "__typename": "NotFound",
        "missingId": made["id"],
        "code": "NOT_FOUND",
    }
    assert (await delete(ask, name, "malformed"))["__typename"] == "NotFound"


@updated
async def test_an_update_during_a_deletion_returns_the_row_or_not_found(ask: Ask, name: str) -> None:
    key = FAMILIES[name].key
    fields = await with_references(ask, FAMILIES[name].fields)
    for number in range(PAIRS):
        made = (await send(ask, "create", name, fields | {key: f"k-{number}"}))[camel(name)]
        change = {**reference(name, made["id"]), **FAMILIES[name].changes}
        updated, deleted = await asyncio.gather(send(ask, "update", name, change), delete(ask, name, made["id"]))
        assert updated["__typename"] in {"NotFound", f"Update{name}Payload"}
        assert deleted["__typename"] == "DeletePayload"


@every
async def test_a_creation_during_a_deletion_returns_a_row(ask: Ask, name: str) -> None:
    fields = await with_references(ask, FAMILIES[name].fields)
    made = (await send(ask, "create", name, fields))[camel(name)]
    for _ in range(PAIRS):
        created, _deleted = await asyncio.gather(send(ask, "create", name, fields), delete(ask, name, made["id"]))
        assert created["__typename"] in {f"Create{name}Payload", "NameTaken"}
        made = created.get(camel(name)) or (await send(ask, "create", name, fields))[camel(name)]

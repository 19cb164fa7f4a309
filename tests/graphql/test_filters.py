"""Filters find the same rows as the same conditions in Python, including nulls."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.documents.states import StateType
from runstate.rows import FlowRun
from tests.client import Ask
from tests.graphql.factories import (
    NOON,
    at,
    ids,
    make_deployment,
    make_flow,
    make_flow_run,
    make_limit,
    make_task_run,
    store,
)
from tests.graphql.mutations import create

FIND = (
    "query($where: FlowRunWhere) { flowRunCount(where: $where) flowRuns(where: $where, first: 200) { nodes { id } } }"
)
NAMES = ["etl", "ETL 50%", "e_l", "back\\slash", "Zürich", "", "%"]
TAGS = ["a", "b", 'quo"te', "ü"]
Meets = Callable[[Any], bool]
Condition = tuple[dict[str, Any], Meets]


def as_text(value: Any) -> str:
    """Return a time as clients write it."""
    return str(value.isoformat())


def as_it_is(value: Any) -> Any:
    """Return a number as clients write it."""
    return value


class World:
    """Random rows and their references."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.flows = [make_flow(name, tags=self.some(TAGS)) for name in NAMES]
        self.limits = [make_limit("db")]
        self.deployments = [
            make_deployment(flow, chance.choice(NAMES), concurrency_limit_id=chance.choice([None, self.limits[0].id]))
            for flow in self.flows[:3]
        ]
        self.runs = [self.a_run() for _ in range(25)]
        self.task_runs = [
            make_task_run(chance.choice([None, *self.runs[:6]]), name=chance.choice(NAMES)) for _ in range(12)
        ]
        for place in range(0, 25, 3):
            self.runs[place].__dict__["parent_task_run_id"] = chance.choice(self.task_runs).id

    def a_run(self) -> FlowRun:
        """Return a run with random nulls."""
        chance = self.chance
        return make_flow_run(
            chance.choice(self.flows),
            name=chance.choice(NAMES),
            tags=self.some(TAGS),
            deployment_id=chance.choice([None, *(deployment.id for deployment in self.deployments)]),
            state_type=chance.choice([None, *StateType]),
            state_name=chance.choice([None, *NAMES]),
            run_count=chance.randrange(4),
            start_time=chance.choice([None, at(1), at(2)]),
            total_run_time_seconds=chance.choice([0.0, 1.5]),
        )

    def some(self, items: list[str]) -> list[str]:
        """Return a random subset of texts."""
        return self.chance.sample(items, k=self.chance.randrange(len(items)))

    async def store(self, database: Database) -> None:
        """Insert all rows; runs and task runs reference each other."""
        parentless = [run.replace(parent_task_run_id=None) for run in self.runs]
        await store(database, *self.flows, *self.limits, *self.deployments, *parentless[:6], *self.task_runs)
        await store(database, *self.runs[6:])
        async with database.write() as transaction:
            table = FlowRun.__table__
            for run in self.runs[:6]:
                parent = (
                    sa.update(FlowRun).where(table.c.id == run.id).values(parent_task_run_id=run.parent_task_run_id)
                )
                await transaction.connection.execute(parent)


class Conditions:
    """Generates conditions, each as clients write it and as a Python function."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance

    def flow_run(self, depth: int) -> Condition:
        """Return a condition on flow runs."""
        world = self.world
        flows = {flow.id: flow for flow in world.flows}
        deployments = {deployment.id: deployment for deployment in world.deployments}
        task_runs = {task_run.id: task_run for task_run in world.task_runs}
        return self.any_of(
            depth,
            self.flow_run,
            [
                lambda: self.text("name"),
                lambda: self.text("stateName", "state_name"),
                self.tags,
                self.state_type,
                lambda: self.ordered("runCount", "run_count", [0, 1, 2, 3]),
                lambda: self.ordered("totalRunTimeSeconds", "total_run_time_seconds", [0.0, 1.5]),
                lambda: self.ordered("startTime", "start_time", [at(1), at(2), at(3)]),
                lambda: self.id("deploymentId", "deployment_id", [deployment.id for deployment in world.deployments]),
                lambda: self.of("flow", "flow_id", flows, self.flow(depth + 1)),
                lambda: self.of("deployment", "deployment_id", deployments, self.deployment(depth + 1)),
                lambda: self.of("parentTaskRun", "parent_task_run_id", task_runs, self.task_run(depth + 1)),
                lambda: self.many("taskRuns", world.task_runs, "flow_run_id", self.task_run(depth + 1)),
            ],
        )

    def flow(self, depth: int) -> Condition:
        """Return a condition on flows."""
        many: list[Callable[[], Condition]] = (
            [lambda: self.many("flowRuns", self.world.runs, "flow_id", self.flow_run(depth + 1))] if depth < 4 else []
        )
        return self.any_of(depth, self.flow, [lambda: self.text("name"), self.tags, *many])

    def deployment(self, depth: int) -> Condition:
        """Return a condition on deployments."""
        flows = {flow.id: flow for flow in self.world.flows}
        limits = {limit.id: limit for limit in self.world.limits}
        return self.any_of(
            depth,
            self.deployment,
            [
                lambda: self.text("name"),
                lambda: self.of("flow", "flow_id", flows, self.flow(depth + 1)),
                lambda: self.of("concurrency", "concurrency_limit_id", limits, self.text("name")),
            ],
        )

    def task_run(self, depth: int) -> Condition:
        """Return a condition on task runs."""
        runs = {run.id: run for run in self.world.runs}
        deeper = [lambda: self.of("flowRun", "flow_run_id", runs, self.flow_run(depth + 1))] if depth < 4 else []
        return self.any_of(depth, self.task_run, [lambda: self.text("name"), *deeper])

    def any_of(self, depth: int, same: Callable[[int], Condition], leaves: list[Callable[[], Condition]]) -> Condition:
        """Return one condition, or a combination of several."""
        if depth > 3 or self.chance.random() < 0.6:
            return self.chance.choice(leaves)()
        parts = [same(depth + 1) for _ in range(self.chance.randrange(3))]
        match self.chance.choice(["and", "or", "not", "both"]):
            case "and":
                return {"and": [each for each, _ in parts]}, lambda row: all(meets(row) for _, meets in parts)
            case "or":
                return {"or": [each for each, _ in parts]}, lambda row: any(meets(row) for _, meets in parts)
            case "not":
                inner, holds = same(depth + 1)
                return {"not": inner}, lambda row: not holds(row)
        (one, first), (other, second) = self.chance.choice(leaves)(), self.chance.choice(leaves)()
        if set(one) & set(other):
            return one, first
        return {**one, **other}, lambda row: first(row) and second(row)

    def of(self, name: str, key: str, rows: dict[Any, Any], inner: Condition) -> Condition:
        """Return a condition on the row that a key references."""
        where, meets = inner
        return {name: where}, lambda row: getattr(row, key) in rows and meets(rows[getattr(row, key)])

    def many(self, name: str, rows: list[Any], key: str, inner: Condition) -> Condition:
        """Return a condition on the rows that reference this one."""
        where, meets = inner
        kind = self.chance.choice(["some", "none"])
        return {
            name: {kind: where}
        }, lambda row: (kind == "some") == any(getattr(each, key) == row.id and meets(each) for each in rows)

    def text(self, name: str, column: str | None = None) -> Condition:
        """Return a condition on a text."""
        text = self.chance.choice([*NAMES, "T", "t", "5", "_", "\\", "\0", "nothing"])
        choices: list[tuple[dict[str, Any], Meets]] = [
            ({"contains": text}, lambda value: value is not None and text.lower() in value.lower()),
            ({"startsWith": text}, lambda value: value is not None and value.startswith(text)),
            self.equality([*NAMES, "\0"], str),
        ]
        where, meets = self.chance.choice(choices)
        return {name: where}, lambda row: meets(getattr(row, column or name))

    def equality(self, values: list[Any], written: Callable[[Any], Any]) -> tuple[dict[str, Any], Meets]:
        """Return a comparison that every type of column has."""
        one = self.chance.choice(values)
        several = self.chance.sample(values, k=self.chance.randrange(len(values)))
        is_null = self.chance.random() < 0.5
        choices: list[tuple[dict[str, Any], Meets]] = [
            ({"eq": written(one)}, lambda value: value == one),
            ({"ne": written(one)}, lambda value: value != one),
            ({"in": [written(each) for each in several]}, lambda value: value in several),
            ({"notIn": [written(each) for each in several]}, lambda value: value not in several),
            ({"isNull": is_null}, lambda value: (value is None) == is_null),
        ]
        return self.chance.choice(choices)

    def ordered(self, name: str, column: str, values: list[Any]) -> Condition:
        """Return a condition on a sortable column."""
        written: Callable[[Any], Any] = as_text if column.endswith("time") else as_it_is
        one = self.chance.choice(values)
        choices: list[tuple[dict[str, Any], Meets]] = [
            ({"gt": written(one)}, lambda value: value is not None and value > one),
            ({"gte": written(one)}, lambda value: value is not None and value >= one),
            ({"lt": written(one)}, lambda value: value is not None and value < one),
            (
                {"lte": written(one), "gt": written(values[0])},
                lambda value: value is not None and values[0] < value <= one,
            ),
            self.equality(values, written),
        ]
        where, meets = self.chance.choice(choices)
        return {name: where}, lambda row: meets(getattr(row, column))

    def id(self, name: str, column: str, values: list[Any]) -> Condition:
        """Return a condition on an id."""
        where, meets = self.equality(values, lambda value: str(value).upper())
        if "notIn" in where:
            where["notIn"].append("malformed")
        return {name: where}, lambda row: meets(getattr(row, column))

    def state_type(self) -> Condition:
        """Return a condition on the type of the state."""
        where, meets = self.equality(list(StateType), lambda value: value.value)
        return {"stateType": where}, lambda row: meets(row.state_type)

    def tags(self) -> Condition:
        """Return a condition on tags."""
        kind, tags = self.chance.choice(["all", "any", "none"]), self.world.some([*TAGS, "\0"])
        meets = {
            "all": lambda row: all(tag in row.tags for tag in tags),
            "any": lambda row: any(tag in row.tags for tag in tags),
            "none": lambda row: not any(tag in row.tags for tag in tags),
        }
        return {"tags": {kind: tags}}, meets[kind]


async def test_a_filter_finds_the_same_rows_as_its_condition(database: Database, ask: Ask) -> None:
    world = World(random.Random(4))
    await world.store(database)
    conditions = Conditions(world)
    for _ in range(150):
        where, meets = conditions.flow_run(0)
        expected = [run for run in world.runs if meets(run)]
        data = await ask(FIND, where=where)
        assert sorted(ids(data["flowRuns"]["nodes"])) == sorted(ids(expected)), where
        assert data["flowRunCount"] == len(expected)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, True),
        ({"and": []}, True),
        ({"or": []}, False),
        ({"not": {}}, False),
        ({"not": {"or": []}}, True),
        ({"id": {"in": []}}, False),
        ({"id": {"notIn": []}}, True),
        ({"id": {"eq": "malformed"}}, False),
        ({"id": {"ne": "malformed"}}, True),
        ({"stateName": {"ne": "Running"}}, True),
        ({"stateName": {"notIn": ["Running"]}}, True),
        ({"not": {"stateName": {"eq": "Running"}}}, True),
        ({"not": {"stateName": {"contains": "Running"}}}, True),
        ({"stateName": {"eq": "Running", "ne": "Running"}}, False),
        ({"runCount": {"gt": 1, "lt": 1}}, False),
        ({"tags": {"isEmpty": True}}, True),
        ({"tags": {"isEmpty": False}}, False),
        ({"tags": {"all": []}}, True),
        ({"tags": {"any": []}}, False),
        ({"tags": {"none": []}}, True),
        ({"deployment": {}}, False),
        ({"not": {"deployment": {}}}, True),
        ({"flow": {"name": {"eq": "etl"}, "tags": {"any": ["x"]}}}, False),
        ({"flow": None}, None),
        ({"name": None}, None),
        ({"and": None}, None),
        ({"tags": {"all": None}}, None),
        ({"name": {}}, None),
        ({"taskRuns": {"none": {}}}, True),
        ({"taskRuns": {"some": {}, "none": {}}}, False),
        ({"paused": {"eq": True}}, None),
    ],
)
async def test_conditions_on_a_run_with_default_columns(
    database: Database, ask: Ask, where: dict[str, Any], *, found: bool | None
) -> None:
    flow = make_flow()
    await store(database, flow, make_flow_run(flow))

    body = await ask.raw(FIND, where=where)

    if found is None:
        assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    else:
        assert body["data"]["flowRunCount"] == found


def nested(levels: int) -> dict[str, Any]:
    """Return a filter with this many levels."""
    return {"not": nested(levels - 1)} if levels > 1 else {"name": {"eq": "x"}}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (nested(13), "A filter is at most 12 levels deep."),
        ({"or": [{"name": {"eq": "x"}}] * 200}, "A filter holds at most 200 conditions."),
        (nested(600), None),
    ],
)
async def test_a_filter_beyond_a_limit_is_refused(ask: Ask, where: dict[str, Any], message: str | None) -> None:
    (error, *_) = (await ask.raw(FIND, where=where))["errors"]

    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert message is None or error["message"] == message


async def test_a_filter_at_the_limits_is_accepted(ask: Ask) -> None:
    assert (await ask(FIND, where=nested(12)))["flowRunCount"] == 0
    assert (await ask(FIND, where={"or": [{"name": {"eq": "x"}}] * 99}))["flowRunCount"] == 0


async def test_other_lists_can_be_filtered_too(database: Database, ask: Ask) -> None:
    flow, other = make_flow("one", created=NOON), make_flow("two", created=at(1))
    deployment = make_deployment(flow, paused=True)
    run = make_flow_run(flow, deployment_id=deployment.id)
    await store(database, flow, other, deployment, run, make_task_run(run), make_limit("x", active=False))

    data = await ask(
        """{
          flows(where: {created: {gt: "2026-01-01T12:00:00Z"}}) { nodes { name } }
          paused: deployments(where: {paused: {eq: true}, flowRuns: {some: {taskRuns: {some: {}}}}}) { totalCount }
          other: deployments(where: {paused: {ne: true}}) { totalCount }
          concurrencyLimits(where: {active: {eq: false}, limit: {lte: 3}}) { nodes { name } }
          taskRuns(where: {flowRun: {flow: {name: {in: ["one"]}}}, taskKey: {eq: "load"}}) { totalCount }
        }"""
    )

    assert data == {
        "flows": {"nodes": [{"name": "two"}]},
        "paused": {"totalCount": 1},
        "other": {"totalCount": 0},
        "concurrencyLimits": {"nodes": [{"name": "x"}]},
        "taskRuns": {"totalCount": 1},
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("σίσυφοσ", ["ΣΊΣΥΦΟΣ"]),
        ("σίσυφος", ["σίσυφος"]),
        ("İSTANBUL", ["istanbul", "İstanbul"]),
        ("ǆ", ["Ǆ", "ǅ", "ǆ"]),
        ("ß", ["straße", "ẞ"]),
        ("ÅØ", ["åø"]),
    ],
)
async def test_each_character_of_a_text_is_matched_in_lower_case(ask: Ask, text: str, found: list[str]) -> None:
    names = ["ΣΊΣΥΦΟΣ", "σίσυφος", "istanbul", "İstanbul", "Ǆ", "ǅ", "ǆ", "straße", "ẞ", "STRASSE", "åø"]
    for name in names:
        await create(ask, "flow", name=name)
    document = "query($text: String!) { flows(where: { name: { contains: $text } }) { nodes { name } } }"
    assert sorted(each["name"] for each in (await ask(document, text=text))["flows"]["nodes"]) == sorted(found)

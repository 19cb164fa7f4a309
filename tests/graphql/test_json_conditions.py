"""Conditions on JSON find the same rows as PostgreSQL's jsonb operators, on both databases."""

import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from runstate.database import Database
from runstate.database.json import contains, equals
from tests.client import Ask
from tests.graphql.factories import ids, make_flow, make_flow_run, store

FIND = "query($where: FlowRunWhere) { flowRuns(where: $where, first: 200) { nodes { id } } }"
VALUES: list[Any] = [
    {},
    {"a": 1, "b": {"c": [1, 2, {"d": None}]}},
    {"a": 1.0, "b": {"c": [2, 1, 1]}, "e": True},
    {"a": True, "b": [], "e": "x"},
    {"a": "1", "b": {"c": "ü\"'\\"}},
    {"a": None, "0": [[1], ["x", None]]},
    {"a": [1, [2, 3]], "b": {"c": {"d": {"x": 1, "y": [True]}}}},
]


def parts(value: Any) -> Iterator[tuple[list[str], Any]]:
    """Yield every part of a value with its path."""
    yield [], value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield from (([str(key), *path], part) for path, part in parts(held))


async def test_postgresql_sqlite_and_python_compare_json_alike(database: Database, ask: Ask) -> None:
    flow, chance = make_flow(), random.Random(7)
    runs = [make_flow_run(flow, parameters=value) for value in VALUES]
    await store(database, flow, *runs)
    every = [each for value in VALUES for each in parts(value)]
    for _ in range(150):
        (path, _), (_, value) = chance.choice(every), chance.choice(every)
        if value is None:
            continue
        name = chance.choice(["eq", "ne", "contains", "in", "notIn"])
        where = {"path": path, name: [value] if name in ("in", "notIn") else value}
        found = ids((await ask(FIND, where={"parameters": where}))["flowRuns"]["nodes"])
        assert sorted(found) == sorted(str(run.id) for run in runs if meets(run.parameters, path, name, value)), where


def meets(document: Any, path: list[str], name: str, value: Any) -> bool:
    """Return whether a document meets a condition, computed in Python."""
    there, found = walk(document, path)
    if name == "contains":
        return there and covers(found, value, top=True)
    return (there and identical(found, value)) is (name in ("eq", "in"))


def walk(document: Any, path: list[str]) -> tuple[bool, Any]:
    for key in path:
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            return False, None
    return True, document


def identical(one: Any, other: Any) -> bool:
    return repr(plain(one)) == repr(plain(other))


def plain(value: Any) -> Any:
    """Return a canonical text of a value."""
    if isinstance(value, dict):
        return sorted((key, plain(held)) for key, held in value.items()), "object"
    if isinstance(value, list):
        return list(map(plain, value))
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def covers(held: Any, asked: Any, *, top: bool = False) -> bool:
    if top and isinstance(held, list) and not isinstance(asked, list | dict):
        return any(identical(each, asked) for each in held)
    if isinstance(held, dict) and isinstance(asked, dict):
        return all(key in held and covers(held[key], value) for key, value in asked.items())
    if isinstance(held, list) and isinstance(asked, list):
        return all(any(covers(each, item) for each in held) for item in asked)
    return type(held) not in (dict, list) and type(asked) not in (dict, list) and identical(held, asked)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"parameters": {"path": ["a"], "isNull": True}}, 0),
        ({"parameters": {"path": ["x"], "isNull": True}}, 1),
        ({"parameters": {"path": ["n"], "isNull": True}}, 1),
        ({"parameters": {"path": ["a"], "isNull": False, "eq": 1}}, 1),
        ({"parameters": {"path": ["a"], "eq": True}}, 0),
        ({"parameters": {"path": ["a"], "in": []}}, 0),
        ({"parameters": {"path": ["x"], "ne": 1}}, 1),
        ({"parameters": {"eq": {"l": ["x"], "n": None, "a": 1}}}, 1),
        ({"parameters": {"path": ["l", "0"], "eq": "x"}}, 1),
        ({"parameters": {"path": ["l", "-1"], "eq": "x"}}, 1),
        ({"parameters": {"path": ["l"], "contains": "x"}}, 1),
        ({"parameters": {"path": ["a\0"], "eq": 1}}, 0),
        ({"parameters": {"contains": {"a\0": 1}}}, 0),
        ({"labels": {"path": ["team"], "eq": "a"}, "context": {"contains": {}}}, 1),
        ({"and": [{"parameters": {"path": ["a"], "eq": 1}}, {"parameters": {"path": ["l"], "contains": ["y"]}}]}, 0),
    ],
)
async def test_a_condition_on_a_run(database: Database, ask: Ask, where: dict[str, Any], found: int) -> None:
    flow = make_flow()
    await store(database, flow, make_flow_run(flow, parameters={"a": 1, "l": ["x"], "n": None}, labels={"team": "a"}))

    assert len((await ask(FIND, where=where))["flowRuns"]["nodes"]) == found


class Endless:
    """A deadline that never expires."""

    parse = staticmethod(orjson.loads)

    def check(self) -> None:
        """Do nothing."""


def test_a_missing_value_is_equal_to_nothing() -> None:
    assert not equals(Endless(), None, "[]", "1")
    assert not contains(Endless(), '{"a": 1}', '["b"]', "1")

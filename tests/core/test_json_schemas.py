"""Validation against JSON schemas of clients."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runstate.core.validation.json_schemas import SCHEMA_BYTES, VALUE_BYTES, WAITING, JsonSchemas
from runstate.errors import InvalidInput, Overloaded

ENDLESS: Any = {"anyOf": [{"type": "array", "items": {"$ref": "#"}}] * 2}
"""A schema whose validation takes two to the power of a value's depth."""


ANYTHING: Any = {}
"""A schema that accepts every value."""


def nested(depth: int) -> Any:
    """Return a value inside this many lists."""
    return [nested(depth - 1)] if depth else 1


@pytest.fixture
async def schemas() -> AsyncIterator[JsonSchemas]:
    """Yield a validator."""
    schemas = JsonSchemas()
    yield schemas
    await schemas.close()


async def refused(schemas: JsonSchemas, value: Any, schema: Any) -> InvalidInput:
    """Return the error with which a value is refused."""
    with pytest.raises(InvalidInput) as refusal:
        await schemas.validate(value, schema, ("input",))
    return refusal.value


async def test_a_conforming_value_is_accepted_and_another_one_is_refused_with_its_path(schemas: JsonSchemas) -> None:
    schema = {"properties": {"days": {"items": {"type": "integer"}}}}
    await schemas.validate({"days": [1, 2]}, schema, ("input",))
    assert (await refused(schemas, {"days": [1, "two"]}, schema)).path == ("input", "days", "1")


@pytest.mark.parametrize(
    "schema",
    [
        7,
        {"type": "whatever"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "#/$defs/nothing"},
        {"pattern": "^(?=lookahead)"},
        {"pattern": r"(a)\1"},
        {"pattern": "((a{1000}){1000}){1000}"},
    ],
)
async def test_an_invalid_schema_is_refused(schemas: JsonSchemas, schema: Any) -> None:
    with pytest.raises(InvalidInput):
        await schemas.check(schema, ("value",))
    assert (await refused(schemas, "value", schema)).path == ("input",)


async def test_a_pattern_takes_linear_time(schemas: JsonSchemas) -> None:
    error = await refused(schemas, "a" * 100_000 + "!", {"pattern": "^(a+)+$"})
    assert "does not match" in error.message


async def test_an_endless_validation_is_ended_and_the_next_one_is_executed(schemas: JsonSchemas) -> None:
    assert "too much time" in (await refused(schemas, nested(60), ENDLESS)).message
    await schemas.validate(1, {"type": "integer"}, ("input",))


async def test_a_process_that_was_killed_is_replaced(schemas: JsonSchemas) -> None:
    await schemas.validate(1, ANYTHING, ("input",))
    assert schemas.process
    schemas.process.kill()
    await schemas.process.wait()
    await schemas.validate(1, ANYTHING, ("input",))


async def test_a_cancelled_caller_leaves_no_answer_to_the_next_one(schemas: JsonSchemas) -> None:
    await schemas.validate(1, ANYTHING, ("input",))
    leaving = asyncio.create_task(schemas.validate("one", {"type": "integer"}, ("input",)))
    for _ in range(3):
        await asyncio.sleep(0)  # iterations of the event loop, until the request is written
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await schemas.validate(1, {"type": "integer"}, ("input",))


async def test_large_and_deeply_nested_values_are_refused(schemas: JsonSchemas) -> None:
    assert "too large" in (await refused(schemas, "x" * VALUE_BYTES, ANYTHING)).message
    assert "too large" in (await refused(schemas, 1, {"title": "x" * SCHEMA_BYTES})).message
    await refused(schemas, nested(500), ANYTHING)


async def test_validations_beyond_the_queue_are_refused_as_overloaded(schemas: JsonSchemas) -> None:
    many = [schemas.validate(1, {"type": "integer"}, ("input",)) for _ in range(WAITING + 1)]
    outcomes = await asyncio.gather(*many, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] * WAITING + [Overloaded]

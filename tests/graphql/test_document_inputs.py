"""Nested, recursive and union documents as inputs."""

from typing import Any
from uuid import UUID

import pytest
from graphql import coerce_input_value

from runstate.errors import InvalidInput
from runstate.graphql.execution.fast_path import reader
from runstate.graphql.types.input_values import read
from tests.graphql.samples import AUTOMATION, DOCUMENTS, TYPES, Automation, CronSchedule, data_of

INPUT = {
    "trigger": {
        "compound": {
            "triggers": [
                {
                    "event": {
                        "expect": ["a"],
                        "matchRelated": [[{"label": "x", "values": ["v"]}, {"label": "y", "role": "z"}]],
                    }
                },
                {"compound": {"triggers": [{"event": {}}]}},
            ],
            "first": {"event": {"threshold": 1}},
        }
    },
    "actions": [{"doNothing": True}, {"resume": {"kind": "CANCEL"}}, {"pause": {"kind": "DELETE", "id": None}}],
    "schedule": {"cron": {"cron": "@daily"}},
}


def without_ids(value: Any) -> Any:
    """Return a JSON value without the generated ids."""
    if isinstance(value, dict):
        return {key: without_ids(each) for key, each in value.items() if key != "id"}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


KEPT = "query($input: AutomationInput!) { kept(input: $input) }"


async def test_an_input_becomes_the_given_documents() -> None:
    kept = Automation.model_validate_json((await data_of(KEPT, input=INPUT))["kept"])

    assert without_ids(kept.model_dump()) == without_ids(AUTOMATION.model_dump())
    assert (await data_of("{ scheduled(input: {interval: {intervalSeconds: 3}}) }"))["scheduled"] == (
        '{"kind":"interval","interval_seconds":3.0}'
    )


async def test_mutually_recursive_documents_are_returned_as_given() -> None:
    inner = "{ inner { whole { inner { __typename } union { __typename } } } anything }"
    variables = {"inner": [{"whole": {"inner": [{}], "union": {"cron": {"cron": "x"}}}}, {}], "anything": {"a": 1}}
    found = await data_of(f"query($input: WholeInput!) {{ whole(input: $input) {inner} }}", input=variables)

    inmost = {"inner": [{"__typename": "Part"}], "union": {"__typename": "CronSchedule"}}
    assert found["whole"] == {"inner": [{"whole": inmost}, {"whole": None}], "anything": {"a": 1}}


def input_of(name: str, value: Any) -> Any:
    """Return the input of a type with a value, as graphql-core coerces it."""
    kind: Any = TYPES.type_map[name]
    return read(kind.extensions["strawberry-definition"].origin, coerce_input_value(value, kind), None)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"trigger": {"event": {"threshold": -1}}}, ("trigger", "event", "threshold")),
        ({"trigger": {"compound": {"triggers": []}}}, ("trigger", "compound", "triggers")),
        ({"schedule": {"interval": {"intervalSeconds": 0.0}}}, ("schedule", "interval", "intervalSeconds")),
        ({"actions": [{"resume": {"kind": "DELETE", "id": "x"}}]}, ("actions", "0", "resume", "id")),
    ],
)
def test_an_invalid_value_is_reported_with_its_path(change: dict[str, Any], path: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as raised:
        input_of("AutomationInput", {**INPUT, **change}).checked()

    assert raised.value.path == path


@pytest.mark.parametrize(
    "schedule", [{}, {"cron": None}, {"cron": {"cron": "x"}, "interval": None}, {"kind": "cron", "cron": {"cron": "x"}}]
)
async def test_exactly_one_member_of_a_union_must_be_given(schedule: dict[str, Any]) -> None:
    answer = await DOCUMENTS.execute(KEPT, {"input": {**INPUT, "schedule": schedule}})

    assert answer.data is None
    with pytest.raises(Exception):  # noqa: B017, PT011 on any error graphql-core reads the input
        reader(TYPES.type_map["AutomationInput"])({**INPUT, "schedule": schedule})


async def test_the_fast_path_and_graphql_core_read_the_same_documents() -> None:
    fast = reader(TYPES.type_map["AutomationInput"])(INPUT).checked()
    slow = Automation.model_validate_json((await data_of(KEPT, input=INPUT))["kept"])

    assert without_ids(fast.model_dump()) == without_ids(slow.model_dump())
    assert reader(TYPES.type_map["ScheduleInput"])({"cron": {"cron": "x"}}).checked() == CronSchedule(cron="x")


async def test_a_deeply_nested_input_is_refused() -> None:
    trigger: dict[str, Any] = {"event": {}}
    for _ in range(400):
        trigger = {"compound": {"triggers": [trigger]}}
    answer = await DOCUMENTS.execute(KEPT, {"input": {**INPUT, "trigger": trigger}})

    assert answer.data is None
    assert "nested too deeply" in str(answer.errors) or "recursion" in str(answer.errors)


def test_an_update_contains_the_documents_of_its_columns() -> None:
    changes: dict[str, Any] = {"id": str(UUID(int=1)), "trigger": None, "schedule": {"cron": {"cron": "x"}}}
    found = input_of("UpdateJobInput", changes).checked()

    assert found.schedule == CronSchedule(cron="x")
    assert found.model_fields_set == {"id", "trigger", "schedule"}
    with pytest.raises(InvalidInput, match="null is not allowed") as raised:
        input_of("UpdateJobInput", {**changes, "schedule": None}).checked()
    assert list(raised.value.path or ()) == ["schedule"]

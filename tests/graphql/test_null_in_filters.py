"""Null in a filter is refused: it is a forgotten value and not a request for everything."""

from typing import Any

import pytest

from runstate.documents.states import RunKind
from runstate.errors import BadUserInput
from runstate.graphql.families.transitions import TransitionWhere
from runstate.graphql.types.input_values import read
from tests.client import Ask
from tests.graphql.mutations import make_flow_run


def refusal(answer: Any) -> str:
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "BAD_USER_INPUT"
    return str(error["message"])


def document(variable: str, condition: str) -> str:
    """Return a query for the flow runs that meet a condition on the variable `$value`."""
    fields = "flowRunCount(where: $where) flowRuns(where: $where) { totalCount }".replace("$where", condition)
    return f"query($value: {variable}) {{ {fields} }}"


@pytest.mark.parametrize("variables", [{"value": None}, {}], ids=["null", "omitted"])
@pytest.mark.parametrize(
    ("variable", "condition"),
    [
        ("ID", "{ id: { eq: $value } }"),
        ("[ID!]", "{ id: { in: $value } }"),
        ("String", "{ name: { contains: $value } }"),
        ("StateType", "{ stateType: { eq: $value } }"),
        ("DateTime", "{ created: { gte: $value } }"),
        ("Boolean", "{ deploymentId: { isNull: $value } }"),
        ("[String!]", "{ tags: { any: $value } }"),
        ("JSON", '{ parameters: { path: ["a"], eq: $value } }'),
        ("ID", "{ flow: { id: { eq: $value } } }"),
        ("FlowRunStateWhere", "{ states: { some: $value } }"),
        ("String", "{ or: [{ not: { name: { eq: $value } } }] }"),
    ],
)
async def test_a_condition_without_a_value_is_refused(
    ask: Ask, variable: str, condition: str, variables: dict[str, Any]
) -> None:
    await make_flow_run(ask)
    answer = await ask.raw(document(variable, condition), **variables)

    assert answer["data"] is None
    for error in answer["errors"]:
        assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("condition", ["{ id: null }", "{ and: null }", "{ not: null }", "{ flow: null }"])
async def test_null_in_place_of_conditions_is_refused(ask: Ask, condition: str) -> None:
    message = refusal(await ask.raw(f"{{ flowRunCount(where: {condition}) }}"))

    assert "null" in message


async def test_nulls_are_found_with_is_null(ask: Ask) -> None:
    run = await make_flow_run(ask)
    message = refusal(await ask.raw("{ flowRunCount(where: { deploymentId: { eq: null } }) }"))
    assert "isNull: true" in message

    found = await ask("{ flowRuns(where: { deploymentId: { isNull: true } }) { nodes { id } } }")
    assert found["flowRuns"]["nodes"] == [{"id": run}]


async def test_omitted_conditions_match_everything(ask: Ask) -> None:
    await make_flow_run(ask)

    assert await ask("query($where: FlowRunWhere) { flowRunCount(where: $where) }") == {"flowRunCount": 1}
    assert await ask("query($id: IDComparison) { flowRunCount(where: { id: $id }) }") == {"flowRunCount": 1}


async def test_null_in_a_nested_filter_is_refused(ask: Ask) -> None:
    await make_flow_run(ask)
    nested = "{ flowRuns { nodes { states(where: { type: { eq: null } }) { totalCount } } } }"

    assert "null" in refusal(await ask.raw(nested))


def test_null_in_the_filter_of_a_subscription_is_refused() -> None:
    with pytest.raises(BadUserInput, match="`runIds` of TransitionWhere is null"):
        read(TransitionWhere, {"runKind": RunKind.FLOW_RUN, "runIds": None}, None)

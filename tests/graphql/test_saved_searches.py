"""Saved searches that are applied to lists, on both databases."""

from typing import Any

import pytest

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, make_flow_run

APPLIED = """query($name: String!, $where: FlowRunWhere) { savedSearch(by: {name: $name}) {
  flowRuns(first: 1, orderBy: [{name: ASC}], where: $where) { totalCount nodes { name } } taskRuns { totalCount } } }"""


def named(operation: str, value: Any, property: str = "name") -> dict[str, Any]:
    """Return a condition on flow runs."""
    return {"object": "flow_run", "property": property, "type": "string", "operation": operation, "value": value}


async def saved(ask: Ask, name: str, *filters: dict[str, Any]) -> None:
    """Save a search."""
    await do(ask, "createSavedSearch", "CreateSavedSearchInput", PROBLEM, name=name, filters=list(filters))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([named("contains", "night")], ["nightly-1", "nightly-2"]),
        ([named("contains", "night"), named("not_equals", "nightly-1")], ["nightly-2"]),
        ([named("any_", ["daily", "other"])], ["daily"]),
        ([named("", {"or": [{"name": {"eq": "daily"}}, {"stateType": {"eq": "RUNNING"}}]}, "where")], ["daily"]),
        ([named("equals", ["PENDING"], "state_type")], None),
        ([named("equals", "x", "colour")], None),
        ([named("is_null", value=False, property="expected_start_time")], ["daily", "nightly-1", "nightly-2"]),
        ([{**named("equals", "x"), "object": "artifact"}], ["daily", "nightly-1", "nightly-2"]),
    ],
)
async def test_a_saved_search_is_applied(ask: Ask, filters: list[dict[str, Any]], found: list[str] | None) -> None:
    for name in ("nightly-1", "nightly-2", "daily"):
        await make_flow_run(ask, name=name)
    await saved(ask, "s", *filters)
    body = await ask.raw(APPLIED, name="s")

    if found is None:
        assert "cannot be applied as FlowRunWhere" in body["errors"][0]["message"]
        assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
        return
    runs = body["data"]["savedSearch"]["flowRuns"]
    assert (runs["totalCount"], runs["nodes"]) == (len(found), [{"name": found[0]}])


async def test_searches_of_a_list_have_their_own_runs_and_further_conditions(ask: Ask) -> None:
    for name in ("a", "b"):
        await make_flow_run(ask, name=name)
        await saved(ask, name, named("equals", name))
    found = await ask("{ savedSearches { nodes { name flowRuns { nodes { name } } } } }")

    assert [each["flowRuns"]["nodes"] for each in found["savedSearches"]["nodes"]] == [[{"name": "a"}], [{"name": "b"}]]
    applied = await ask(APPLIED, name="a", where={"name": {"eq": "b"}})
    assert applied["savedSearch"]["flowRuns"]["totalCount"] == 0

"""The examples of docs/automations.md are accepted, and their triggers fire when the page says so."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.client import Ask

PAGE = (Path(__file__).parent.parent / "docs/automations.md").read_text()
EXAMPLES: dict[str, Any] = {
    each["name"]: each for each in map(json.loads, re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CREATE = """mutation($input: CreateAutomationInput!) { createAutomation(input: $input) {
  ... on CreateAutomationPayload { automation { name } } ... on Problem { message } } }"""
PREVIEW = """query($input: TestTriggerInput!) { testTrigger(input: $input) {
  ... on TestTriggerPayload { firings { fired } } ... on Problem { message } } }"""
RUN = "runstate.flow-run.00000000-0000-4000-8000-000000000009"
DEPLOYMENTS = [f"runstate.deployment.00000000-0000-4000-8000-00000000000{each}" for each in "ab"]

Arrival = tuple[float, str, list[str]]
"""Seconds, name, and ids of related resources."""
CASES: list[tuple[str, list[Arrival], float, list[float]]] = [
    ("notify on failure", [(5, "runstate.flow-run.Completed", []), (9, "runstate.flow-run.Failed", [])], 10, [9]),
    ("crash silent runs", [(0, "flow-run.heartbeat", []), (60, "flow-run.heartbeat", [])], 300, [150]),
    ("crash silent runs", [(0, "flow-run.heartbeat", []), (60, "runstate.flow-run.Completed", [])], 300, []),
    (
        "report after both imports",
        [(place, "runstate.flow-run.Completed", [each]) for place, each in enumerate(DEPLOYMENTS)],
        9,
        [1],
    ),
    ("no orders", [(1800, "order.placed", [])], 7300, [7200]),
]


def instant(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def arrival(given: Arrival) -> dict[str, Any]:
    seconds, name, related = given
    resources = [{"resourceId": each, "role": "deployment"} for each in related]
    event = {"name": name, "occurred": instant(seconds), "resource": {"resourceId": RUN}, "related": resources}
    return {"event": event}


async def test_each_example_is_accepted(ask: Ask) -> None:
    for name, example in EXAMPLES.items():
        assert (await ask(CREATE, input=example))["createAutomation"] == {"automation": {"name": name}}


@pytest.mark.parametrize(("name", "arrivals", "until", "fired"), CASES)
async def test_triggers_of_examples_fire(
    ask: Ask, name: str, arrivals: list[Arrival], until: float, fired: list[float]
) -> None:
    given = {"trigger": EXAMPLES[name]["trigger"], "events": list(map(arrival, arrivals))}
    found = await ask(PREVIEW, input={**given, "since": instant(0), "until": instant(until)})
    times = [datetime.fromisoformat(each["fired"]) for each in found["testTrigger"]["firings"]]
    assert [(each - BEGIN).total_seconds() for each in times] == fired


def test_the_page_has_the_examples() -> None:
    assert {name for name, *_ in CASES} == set(EXAMPLES)

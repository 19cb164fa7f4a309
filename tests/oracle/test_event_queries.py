"""Recorded questions about events get the recorded answers."""

from typing import Any

import pytest

from tests.client import Ask
from tests.oracle.event_queries import EMIT, answer, seed
from tests.oracle.recording import Scenario, read
from tests.oracle.triggers import EVENTS, own

SCENARIOS = read(EVENTS)
SHOWN = 5


def expected(scenario: Scenario) -> Any:
    """Return the recorded answer in the form of `answer`."""
    recorded = own(scenario.steps[0]["expect"])
    if scenario.family == "emit":
        return {"accepted": recorded["accepted"]}
    return (
        sorted(recorded, key=lambda each: (-each["count"], each["value"])) if scenario.family == "counts" else recorded
    )


@pytest.mark.parametrize("family", ["emit", "events", "counts", "history"])
async def test_each_scenario_is_answered_as_recorded(ask: Ask, family: str) -> None:
    scenarios = [each for each in SCENARIOS if each.family == family]
    if family != "emit":
        assert (await ask(EMIT, input={"events": seed()}))["r"]["__typename"] == "EmitEventsPayload"
    differences = [
        f"{each.name}: {found} instead of {expected(each)}"
        for each in scenarios
        if (found := await answer(ask, own(each.steps[0]))) != expected(each)
    ]
    assert scenarios
    assert not differences, "\n".join([f"{len(differences)} of {len(scenarios)} differ", *differences[:SHOWN]])

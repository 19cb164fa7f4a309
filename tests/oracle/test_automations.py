"""Recorded scenarios of automations and their actions get the recorded answers."""

import pytest
from starlette.applications import Starlette

from runstate.services import actions, automations
from tests.client import Ask
from tests.oracle.automations import Automations
from tests.oracle.recording import Scenario, read
from tests.oracle.triggers import EVENTS

SCENARIOS = read(EVENTS)
FAMILIES = ("action", "automations", "live", "target", "template", "validate")
SHOWN = 5


@pytest.mark.parametrize("family", FAMILIES)
async def test_each_scenario_is_answered_as_recorded(app: Starlette, ask: Ask, family: str) -> None:
    batcher = app.state.batcher

    async def settle() -> None:
        """Evaluate what was appended, and execute the actions of what fired."""
        await automations.run_once(batcher, batcher.clock())
        await actions.run_once(batcher, batcher.clock())

    async def difference(scenario: Scenario) -> str | None:
        try:
            await Automations(ask, settle).play(scenario)
        except AssertionError as error:
            return f"{scenario.name}: {error}"
        return None

    scenarios = [each for each in SCENARIOS if each.family == family]
    differences = [found for each in scenarios if (found := await difference(each))]
    assert scenarios
    assert not differences, "\n".join([f"{len(differences)} of {len(scenarios)} differ", *differences[:SHOWN]])

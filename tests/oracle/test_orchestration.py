"""Recorded scenarios get the recorded answers, one after another and concurrently."""

import os

import pytest

from tests.client import Ask
from tests.oracle.player import play
from tests.oracle.recording import Scenario, read, sample

SCENARIOS = read()
FAMILIES = sorted({scenario.family for scenario in SCENARIOS})
EVERY_ONE = os.environ.get("RUNSTATE_ORACLE") == "all"
SHOWN = 10


def scenarios_of(family: str) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if scenario.family == family]


async def as_recorded(ask: Ask, scenarios: list[Scenario], at_once: int) -> None:
    differences = await play(ask, scenarios, at_once)
    if differences:
        first = "\n".join(differences[:SHOWN])
        pytest.fail(f"{len(differences)} of {len(scenarios)} scenarios differ:\n{first}", pytrace=False)


def test_the_recording_is_complete() -> None:
    assert len(SCENARIOS) == 2068
    assert len(FAMILIES) == 11


@pytest.mark.parametrize("family", FAMILIES)
async def test_each_scenario_is_answered_as_recorded(ask: Ask, family: str) -> None:
    await as_recorded(ask, sample(scenarios_of(family), 12), at_once=1)


@pytest.mark.parametrize("family", FAMILIES)
async def test_scenarios_that_share_batches_are_answered_as_recorded(ask: Ask, family: str) -> None:
    scenarios = scenarios_of(family)
    await as_recorded(ask, scenarios if EVERY_ONE else sample(scenarios, 64), at_once=64)

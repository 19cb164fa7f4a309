"""Recorded scenarios of deployments, schedules, pools, queues, workers and claims get the recorded answers."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.applications import Starlette

from runstate.services import scheduler
from tests.client import Ask
from tests.oracle import scheduling_steps
from tests.oracle.recording import Scenario, read
from tests.oracle.scheduling import Play

SCENARIOS = read(Path(__file__).with_name("scheduling.jsonl.gz"))
STEPS = scheduling_steps
"""Registers the operations."""
SHOWN = 10
AT_ONCE = 8
ALONE = {"scheduler"}
"""Families whose scenarios are played one after another: a pass of the scheduler takes the schedules of all of them."""
PURE = "dates"
"""Operation of the scenarios without rows, which tests/core/test_dates.py plays."""
DIFFERENT = {"workers/offline"}
"""The reference keeps ONLINE until a service runs; here the status is computed: three intervals of 1 s are over."""
STORED = [each for each in SCENARIOS if each.name not in DIFFERENT and all(s["op"] != PURE for s in each.steps)]
FAMILIES = sorted({each.family for each in STORED})


async def differences_of(ask: Ask, app: Starlette, scenarios: list[Scenario]) -> list[str]:
    """Play scenarios concurrently; return their differences from the recording."""
    gate = asyncio.Semaphore(1 if scenarios[0].family in ALONE else AT_ONCE)

    async def one(scenario: Scenario) -> str | None:
        async with gate:
            try:
                await Play(ask, lambda: scheduler.run_once(app.state.batcher, datetime.now(UTC))).play(scenario)
            except AssertionError as difference:
                return f"{scenario.name}: {difference}"
        return None

    return [each for each in await asyncio.gather(*map(one, scenarios)) if each]


def test_the_recording_is_complete() -> None:
    assert (len(SCENARIOS), len(STORED)) == (1654, 533)


@pytest.mark.parametrize("family", FAMILIES)
async def test_each_scenario_is_answered_as_recorded(ask: Ask, app: Starlette, family: str) -> None:
    scenarios = [each for each in STORED if each.family == family]
    if differences := await differences_of(ask, app, scenarios):
        first = "\n".join(differences[:SHOWN])
        pytest.fail(f"{len(differences)} of {len(scenarios)} scenarios differ:\n{first}", pytrace=False)

"""Recorded scenarios of logs and the other stores get the recorded answers."""

import asyncio

import pytest

from tests.client import Ask
from tests.oracle import (
    stores_allowlist,
    stores_artifacts,
    stores_blocks,
    stores_logs,
    stores_searches,
    stores_variables,
)
from tests.oracle.recording import STORES, Scenario, read
from tests.oracle.stores import Stores

SCENARIOS = read(STORES)
MODULES = (stores_allowlist, stores_artifacts, stores_blocks, stores_logs, stores_searches, stores_variables)
"""Modules that register operations."""
SHOWN = 10
AT_ONCE = 8
ALONE = {"default_storage", "ip_access", "ip_entry"}
"""Families whose scenarios change one object of the server: they are played one after another."""
NOT_BUILT = {"result"}
"""Families of a client that does not exist yet."""
FAMILIES = sorted({each.family for each in SCENARIOS} - NOT_BUILT)


async def differences_of(ask: Ask, scenarios: list[Scenario]) -> list[str]:
    """Play scenarios concurrently; return their differences from the recording."""
    gate = asyncio.Semaphore(1 if scenarios[0].family in ALONE else AT_ONCE)

    async def one(scenario: Scenario) -> str | None:
        async with gate:
            try:
                await Stores(ask).play(scenario)
            except AssertionError as difference:
                return f"{scenario.name}: {difference}"
        return None

    return [each for each in await asyncio.gather(*map(one, scenarios)) if each]


def test_the_recording_is_complete() -> None:
    assert len(SCENARIOS) == 643


@pytest.mark.parametrize("family", FAMILIES)
async def test_each_scenario_is_answered_as_recorded(ask: Ask, family: str) -> None:
    scenarios = [each for each in SCENARIOS if each.family == family]
    if differences := await differences_of(ask, scenarios):
        first = "\n".join(differences[:SHOWN])
        pytest.fail(f"{len(differences)} of {len(scenarios)} scenarios differ:\n{first}", pytrace=False)

"""Two servers that are killed while schedules change: afterwards each date has exactly one run."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from signal import SIGKILL
from typing import Any

import httpx
import pytest

from tests.client import Ask
from tests.core.factories import THOROUGH
from tests.graphql.mutations import make_deployment, make_flow
from tests.graphql.test_deployment_schedules import set_all
from tests.serving import Serve, Server

SCHEDULER = {"RUNSTATE_SERVICES": "scheduler", "RUNSTATE_SERVICE_INTERVALS": '{"scheduler": 0.1}'}
DEPLOYMENTS = 6
ROUNDS = 4
THOROUGH_SECONDS = 120
CHANCE = Random(7)
STEP = timedelta(minutes=2)
START = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = """query($after: String) { flowRuns(first: 200, after: $after) {
  nodes { deploymentId expectedStartTime } pageInfo { hasNextPage endCursor } } }"""


def rounds() -> Iterator[int]:
    """Yield the numbers of the rounds; with RUNSTATE_THOROUGH for two minutes."""
    end = time.monotonic() + THOROUGH_SECONDS
    for number in count(1):
        if time.monotonic() > end if THOROUGH else number == ROUNDS:
            return
        yield number


def schedule(phase: int) -> Any:
    anchor = (START + timedelta(seconds=phase)).isoformat()
    return {"slug": "s", "schedule": {"interval": {"intervalSeconds": STEP.total_seconds(), "anchor": anchor}}}


async def runs(ask: Ask) -> list[tuple[str, datetime]]:
    """Return the deployment and the date of each run."""
    found, after = list[Any](), None
    while True:
        page = (await ask(RUNS, after=after))["flowRuns"]
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return [(run["deploymentId"], datetime.fromisoformat(run["expectedStartTime"])) for run in found]


def expected(phases: dict[str, int], now: datetime) -> set[tuple[str, datetime]]:
    """Return the dates of the next hour, without the first minute: a date may pass meanwhile."""
    dates = [START + number * STEP for number in range((now - START) // STEP, (now - START) // STEP + 40)]
    wanted = {(each, date + timedelta(seconds=phase)) for each, phase in phases.items() for date in dates}
    return {each for each in wanted if timedelta(minutes=1) <= each[1] - now <= timedelta(minutes=59)}


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url.removesuffix("/graphql"), timeout=60)


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_each_date_has_one_run_after_servers_were_killed_while_schedules_changed(serve: Serve) -> None:
    kept, killed = await asyncio.gather(serve(**SCHEDULER), serve(**SCHEDULER))
    async with client_of(kept) as client, asyncio.timeout(150 + THOROUGH_SECONDS * THOROUGH):
        ask = Ask(client)
        flow = await make_flow(ask)
        made = [
            await make_deployment(ask, flowId=flow, name=f"d-{n}", schedules=[schedule(0)]) for n in range(DEPLOYMENTS)
        ]
        phases = dict.fromkeys(made, 0)
        for round_ in rounds():
            edited = CHANCE.sample(made, DEPLOYMENTS // 2)
            phases |= dict.fromkeys(edited, round_ % 60)
            changes = [set_all(ask, each, schedule(round_ % 60)) for each in edited]
            await asyncio.gather(*changes, killed.stop(SIGKILL))
            killed = await serve(**SCHEDULER)
        while True:
            found, now = Counter(await runs(ask)), datetime.now(UTC)
            if found.keys() >= expected(phases, now):
                break

        in_time = {each for each in found if each[1] > now + timedelta(seconds=2)}
        ahead = timedelta(hours=1) + STEP
        assert set(found.values()) == {1}
        assert all(
            date <= now + ahead and not (date - START - timedelta(seconds=phases[each])) % STEP
            for each, date in in_time
        )

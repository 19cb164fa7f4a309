"""Concurrent clients and services of two servers: the stored rows agree, and no limit is exceeded."""

import asyncio
from collections.abc import Callable
from random import Random
from uuid import UUID

import pytest

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.core.batch.requests import Answer, ProposeState
from runstate.core.checks.verify import verify
from runstate.core.states import State
from runstate.documents.states import RunKind
from runstate.rows import ConcurrencyLimit
from runstate.services import SERVICES
from tests.services.factories import NOW, Clock, Making

STEPS = 15
CLIENTS = 10


async def related_runs(make: Making) -> list[tuple[RunKind, UUID]]:
    """Create runs with common limits, and subflow runs with their task runs; return them."""
    await make.limit("tag:a", 2)
    await make.limit("tag:b", 3, slot_decay_per_second=0.7)
    deployment, parent = await make.deployment(concurrency_limit=2), await make.flow_run()
    flow_runs = await make.flow_runs([states.scheduled(NOW)] * 6, deployment_id=deployment)
    task_runs = await make.task_runs(parent, [states.pending()] * 8, tags=["a", "b"])
    for _ in range(2):
        subflow_run, task_run = await make.subflow_run(parent)
        flow_runs.append(subflow_run)
        task_runs.append(task_run)
    return [(RunKind.FLOW_RUN, run) for run in flow_runs] + [(RunKind.TASK_RUN, run) for run in task_runs]


def possible_states(clock: Clock) -> list[Callable[[], State]]:
    """Return the states that clients propose."""
    ends = [states.completed, states.failed, states.cancelled, states.crashed]
    waits = [lambda: states.scheduled(clock.now), lambda: states.paused(clock.now, timeout_seconds=5)]
    return [states.pending, states.running, states.running, states.cancelling, *ends, *waits]


@pytest.mark.parametrize("seed", range(2))
async def test_concurrent_clients_and_services_leave_consistent_rows(make: Making, other: Batcher, seed: int) -> None:
    random, desks = Random(seed), (make.batcher, other)
    runs, possible = await related_runs(make), possible_states(make.clock)

    def proposal() -> ProposeState:
        kind, run_id = random.choice(runs)
        return ProposeState(kind=kind, run_id=run_id, state=random.choice(possible)(), force=random.random() < 0.1)

    for _ in range(STEPS):
        now = make.clock.forward(seconds=random.choice([0.1, 1, 10, 200]))
        asked = [random.choice(desks).submit([proposal(), proposal()]) for _ in range(CLIENTS)]
        served = [each.run_once(random.choice(desks), now) for each in SERVICES.values()]
        answers, _ = await asyncio.gather(asyncio.gather(*asked), asyncio.gather(*served))

        assert all(isinstance(answer, Answer) for pair in answers for answer in pair)
        assert await verify(make.database, now) == []
        assert [limit for limit in await make.rows(ConcurrencyLimit) if limit.occupied > limit.limit] == []

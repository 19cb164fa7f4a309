"""Rate limits in a database: the slots of runs that start and end."""

from typing import Any

from uuid_utils.compat import uuid7

from runstate.core.batch.decide import Environment
from runstate.core.batch.orchestrate import load, orchestrate
from runstate.core.states import State, completed, running
from runstate.database import Database
from runstate.documents.decisions import OrchestrationStatus
from runstate.rows import ConcurrencyLease, ConcurrencyLimit, TaskRun
from tests.core.factories import NOW, in_seconds, limit, task_run
from tests.core.store_in_memory import proposal
from tests.core.stored import put, rows_of


async def enter(database: Database, state: State, *runs: TaskRun, seconds: float = 0) -> None:
    """Have task runs enter a state in one transaction."""
    environment = Environment(now=in_seconds(seconds), draw=lambda: 0.5, new_id=uuid7)
    outcomes: list[Any] = await orchestrate(database, [proposal(run, state) for run in runs], environment)
    assert [each.status for each in outcomes] == [OrchestrationStatus.ACCEPT] * len(runs)


async def expiries(database: Database, on: ConcurrencyLimit) -> dict[Any, float]:
    """Return when the leases of a limit expire, in seconds after NOW, by run."""
    leases = await rows_of(database, ConcurrencyLease, ConcurrencyLease.limit_id, [on.id])
    return {each.run_id: (each.expires - NOW).total_seconds() for each in leases if each.expires}


async def test_a_start_loads_no_lease_of_another_run(database: Database) -> None:
    on = limit(9, name="tag:rate", slot_decay_per_second=1)
    runs = [task_run(tags=["rate"]) for _ in range(4)]
    await put(database, on, *runs)
    await enter(database, running(), *runs[:3])

    async with database.write() as transaction:
        unit = await load(transaction.connection, [proposal(runs[3], running())], NOW)

    assert (list(unit.limits), list(unit.leases)) == ([on.id], [])


async def test_slots_behind_released_ones_are_free_sooner(database: Database) -> None:
    on = limit(9, name="tag:rate", slot_decay_per_second=0.5)
    first, second, third, fourth, new = runs = [task_run(tags=["rate"]) for _ in range(5)]
    await put(database, on, *runs)
    for run in runs[:4]:
        await enter(database, running(), run)
    assert await expiries(database, on) == {first.id: 2, second.id: 4, third.id: 6, fourth.id: 8}

    await enter(database, completed(), second, seconds=1)
    assert await expiries(database, on) == {first.id: 2, third.id: 4, fourth.id: 6}

    environment = Environment(now=in_seconds(1), draw=lambda: 0.5, new_id=uuid7)
    proposals = [proposal(first, completed()), proposal(new, running()), proposal(third, completed())]
    await orchestrate(database, proposals, environment)
    assert await expiries(database, on) == {fourth.id: 3, new.id: 5}
    assert [each.drained for each in await rows_of(database, ConcurrencyLimit, ConcurrencyLimit.id, [on.id])] == [
        in_seconds(5)
    ]

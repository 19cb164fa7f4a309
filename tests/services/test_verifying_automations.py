"""`runstate verify` finds firings and windows that differ from those that the log leads to."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from runstate.core.checks.automations import MISSING, OF_NO_ROUND, SUPERFLUOUS, WINDOWS, verify_automations
from runstate.core.commands.automations import UpdateAutomation, delete_automation, update_automation
from runstate.database.bulk import table_of
from runstate.rows import AutomationBucket, AutomationFiring, EvaluatedRound
from runstate.rows.base import EPOCH
from tests.services.factories import Making
from tests.services.test_automations import ON_A, Timed, automation, emit, rows

COUNTING: dict[str, Any] = {**ON_A, "threshold": 3, "within_seconds": 600, "for_each": [{"label": "resource.id"}]}


async def evaluated(make: Making) -> None:
    """Let automations fire in several rounds, and change them."""
    evaluator = Timed(make.database, make.clock, page_size=3)
    await emit(make, "a")
    await evaluator.run_once()
    key = await automation(make)
    await automation(make, COUNTING)
    for number in range(5):
        await emit(make, "a", "b", "a", resource=f"r{number % 2}")
        make.clock.forward(seconds=1)
        await evaluator.run_once()
    await update_automation(make.batcher.context, UpdateAutomation(id=key, enabled=False))
    await emit(make, "a")
    await evaluator.run_once()
    await delete_automation(make.batcher.context, key)
    await emit(make, "a", "a")
    await evaluator.run_once()


async def findings(make: Making) -> list[str]:
    """Return what is found, without numbers."""
    return [each.partition(" (")[0] for each in await verify_automations(make.database, EPOCH)]


async def damaged(make: Making, statement: sa.Executable) -> list[str]:
    """Return what is found after a statement."""
    await evaluated(make)
    assert await findings(make) == []
    async with make.database.write() as transaction:
        await transaction.connection.execute(statement)
    return await findings(make)


async def test_an_empty_database_has_no_findings(make: Making) -> None:
    assert await findings(make) == []


async def test_a_lost_firing_is_found(make: Making) -> None:
    some = sa.select(sa.func.min(AutomationFiring.fired)).scalar_subquery()
    assert await damaged(make, sa.delete(AutomationFiring).where(AutomationFiring.fired == some)) == [MISSING]


async def test_a_firing_too_many_is_found(make: Making) -> None:
    table = table_of(AutomationFiring)
    columns = [each for each in table.c if each.name != "id"]
    one = sa.select(sa.literal(uuid4(), sa.Uuid()), *columns).order_by(table.c.id).limit(1)
    await evaluated(make)
    async with make.database.write() as transaction:
        await transaction.connection.execute(sa.insert(table).from_select(["id", *columns], one))
    assert await findings(make) == [SUPERFLUOUS]


async def test_a_firing_without_a_round_is_found(make: Making) -> None:
    late = sa.update(AutomationFiring).values(created=make.clock() + timedelta(hours=1))
    assert await damaged(make, late) == [OF_NO_ROUND, MISSING]


async def test_another_window_is_found(make: Making) -> None:
    counted = sa.update(AutomationBucket).values(count=AutomationBucket.count + 1)
    assert await damaged(make, counted) == [WINDOWS]


async def test_automations_that_are_older_than_the_rounds_are_not_compared(make: Making) -> None:
    await evaluated(make)
    first = sa.select(sa.func.min(EvaluatedRound.number) + 4).scalar_subquery()
    async with make.database.write() as transaction:
        await transaction.connection.execute(sa.delete(EvaluatedRound).where(EvaluatedRound.number < first))
    assert await findings(make) == []


async def test_windows_that_a_change_has_deleted_before_its_place_was_read_are_not_compared(make: Making) -> None:
    await evaluated(make)
    (key,) = {each for (each,) in await rows(make.database, AutomationBucket, "automation_id")}
    make.clock.forward(seconds=1)
    await delete_automation(make.batcher.context, key)
    assert await findings(make) == []

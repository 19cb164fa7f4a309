"""Automations fire once, whatever rounds the log is read in, and whichever process reads it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from typing_extensions import override

from runstate.core import states
from runstate.core.automations.compiled import Compiled
from runstate.core.automations.events import Event
from runstate.core.automations.index import Index
from runstate.core.automations.state import State
from runstate.core.automations.steps import step
from runstate.core.automations.stored import COLUMNS, of_row
from runstate.core.checks.automations import verify_automations
from runstate.core.commands.automations import (
    CreateAutomation,
    UpdateAutomation,
    create_automation,
    delete_automation,
    update_automation,
)
from runstate.core.commands.events import emit_events
from runstate.core.evaluation.definitions import CHANGES, TRIGGER, Evaluated
from runstate.core.evaluation.evaluator import COMMIT_TIME, LEASE, Evaluator
from runstate.core.evaluation.measuring import measured
from runstate.database import Database
from runstate.database.bulk import table_of
from runstate.documents.events import EmitEvents
from runstate.rows import AutomationActionRun, AutomationBucket, AutomationFiring, LogReader
from runstate.rows import Event as AnyEvent
from runstate.rows.base import EPOCH
from tests.services.factories import Making

ON_A = {"kind": "event", "posture": "REACTIVE", "expect": ["a"], "threshold": 1, "within_seconds": 0}
TRIGGERS: list[dict[str, Any]] = [
    ON_A,
    {**ON_A, "threshold": 2, "within_seconds": 40, "for_each": [{"label": "resource.id"}]},
    {**ON_A, "posture": "PROACTIVE", "after": ["b"], "within_seconds": 20},
    {**ON_A, "posture": "PROACTIVE", "within_seconds": 30, "threshold": 3},
    {"kind": "compound", "triggers": [ON_A, {**ON_A, "expect": ["b"]}], "within_seconds": 60},
    {"kind": "sequence", "triggers": [{**ON_A, "expect": ["c"]}, {**ON_A, "threshold": 2, "within_seconds": 60}]},
]


class Timed(Evaluator):
    """An evaluator whose database has the time of the test."""

    @override
    async def _time(self) -> datetime:
        return self.clock() + COMMIT_TIME


@pytest.fixture
def evaluator(make: Making) -> Evaluator:
    """Return the evaluator of a process."""
    return Timed(make.database, make.clock)


async def automation(make: Making, trigger: dict[str, Any] = ON_A, **more: Any) -> UUID:
    """Create an automation; return its id."""
    document = CreateAutomation(name="a", trigger=trigger, **{"actions": [{"action": "do_nothing"}], **more})
    return (await create_automation(make.batcher.context, document)).row.id


async def emit(make: Making, *names: str, resource: str = "r", **more: Any) -> list[UUID]:
    """Append events that occur now."""
    events = [{"name": name, "resource": {"resource_id": resource}, **more} for name in names]
    return (await emit_events(make.batcher.context, EmitEvents(events=events))).ids  # type: ignore[arg-type]


async def rows(database: Database, row: Any, *columns: str) -> list[Any]:
    """Return columns of all rows of a table, in their order."""
    table = table_of(row)
    async with database.read() as connection:
        return sorted((await connection.execute(sa.select(*(table.c[name] for name in columns)))).all(), key=str)


async def log_of(database: Database) -> Sequence[Event]:
    """Return all events in the order of the log."""
    table = AnyEvent.__table__
    async with database.read() as connection:
        asked = sa.select(*(table.c[name] for name in COLUMNS)).order_by(table.c.seq)
        return [of_row(row) for row in await connection.execute(asked)]


async def expected(database: Database, until: datetime) -> list[tuple[UUID, UUID]]:
    """Return the firings of the pure core over the whole log."""
    state, automations, fired = State(EPOCH), dict[UUID, Evaluated](), list[tuple[UUID, UUID]]()
    for event in await log_of(database):
        found = step(Index(each.compiled for each in automations.values()), state, event).firings
        fired += [(each.id, each.automation_id) for each in found]
        if event.name in CHANGES:
            key = UUID(event.resource["resource.id"].rpartition(".")[2])
            automations[key] = Evaluated.of(key, event.payload["definition"])
            state.add(automations[key].compiled)
    last = step(Index(each.compiled for each in automations.values()), state, until).firings
    return sorted(fired + [(each.id, each.automation_id) for each in last], key=str)


async def test_an_event_fires_an_automation_with_its_actions(make: Making, evaluator: Evaluator) -> None:
    await emit(make, "a")
    key = await automation(make)
    before, (event,) = await emit(make, "b"), await emit(make, "a")

    assert await evaluator.run_once() == 1
    assert await evaluator.run_once() == 0
    assert await rows(make.database, AutomationFiring, "automation_id", "event_id") == [(key, event)]
    assert len(await rows(make.database, AutomationActionRun, "id")) == 1
    (told,) = [each for each in await log_of(make.database) if each.name == "runstate.automation.triggered"]
    assert told.related[0]["resource.id"] == f"runstate.event.{event}"
    assert before


async def test_changes_take_effect_at_their_place(make: Making, evaluator: Evaluator) -> None:
    key = await automation(make)
    first = await emit(make, "a")
    await update_automation(make.batcher.context, UpdateAutomation(id=key, enabled=False))
    await emit(make, "a")
    await update_automation(make.batcher.context, UpdateAutomation(id=key, enabled=True))
    last = await emit(make, "a")
    await delete_automation(make.batcher.context, key)
    await emit(make, "a")

    # All of them were made before the evaluator reads the first.
    assert await evaluator.run_once() == 2
    assert {event for (event,) in await rows(make.database, AutomationFiring, "event_id")} == {*first, *last}
    assert await rows(make.database, AutomationBucket, "id") == []


async def test_silence_fires_without_an_event(make: Making, evaluator: Evaluator) -> None:
    await automation(make, {**ON_A, "posture": "PROACTIVE", "within_seconds": 10})
    start = make.clock()
    await evaluator.run_once()
    make.clock.forward(seconds=9)
    assert await evaluator.run_once() == 0
    make.clock.forward(seconds=12)

    assert await evaluator.run_once() == 2
    fired = [fired for (fired,) in await rows(make.database, AutomationFiring, "fired")]
    assert fired == [start + timedelta(seconds=10), start + timedelta(seconds=20)]


async def test_a_follower_is_evaluated_after_its_leader(make: Making, evaluator: Evaluator) -> None:
    sequence = {"kind": "sequence", "triggers": [ON_A, {**ON_A, "expect": ["b"]}]}
    await automation(make, sequence)
    leader = "00000000-0000-7000-8000-000000000001"
    await emit(make, "b", follows=leader)
    assert await evaluator.run_once() == 0
    await emit(make, "a", id=leader)

    assert await Timed(make.database, make.clock).run_once() == 0  # another process has the lease
    assert await evaluator.run_once() == 1


async def test_a_metric_fires_when_it_is_bad_for_a_while_and_when_it_is_over(
    make: Making, evaluator: Evaluator
) -> None:
    await automation(make, {"kind": "metric", "metric": "SUCCESSES", "operator": "LT", "threshold": 0.5})
    found = []
    for place in range(30):
        if place in (0, 6):
            await make.flow_run(states.failed())
        make.clock.forward(seconds=30)
        await evaluator.run_once()
        found.append([state.value for (state,) in await rows(make.database, AutomationFiring, "state")])

    assert found[9] == []
    assert ["TRIGGERED"] in found
    assert found[-1] == ["RESOLVED", "TRIGGERED"]


@pytest.mark.parametrize(
    ("metric", "value"), [("SUCCESSES", 0.5), ("LATENESS", 15.0), ("DURATION", 30.0), (None, None)]
)
async def test_a_metric_measures_the_matching_runs_of_its_range(
    make: Making, metric: str | None, value: float | None
) -> None:
    scheduled = make.clock()
    for end in (states.completed(), states.failed()):
        run = await make.flow_run(states.scheduled(scheduled), name="slow")
        make.clock.forward(seconds=10)
        await make.flow_run_enters(run, states.running())
        make.clock.forward(seconds=30)
        await make.flow_run_enters(run, end)
        scheduled = make.clock.forward(seconds=0) - timedelta(seconds=10)
    other = await make.flow_run(states.running(), name="other")
    await make.flow_run_enters(other, states.completed())
    match = [{"label": "resource.name", "values": ["slow" if metric else "nothing"]}]
    given = {"kind": "metric", "metric": metric or "DURATION", "operator": "LT", "threshold": 1, "match": match}
    compiled = Compiled(uuid4(), TRIGGER.validate_python(given))

    async with make.database.read() as connection:
        (found,) = await measured(connection, compiled.metrics, make.clock())
    assert found.value == value


async def test_a_loop_of_automations_is_stopped(make: Making, evaluator: Evaluator) -> None:
    await automation(make, {**ON_A, "expect": ["a", "runstate.automation.triggered"]})
    await emit(make, "a")
    while await evaluator.run_once():
        pass

    assert len(await rows(make.database, AutomationFiring, "id")) == 20
    assert [each.name for each in await log_of(make.database)][-1] == "runstate.automation.loop-stopped"


async def test_a_process_that_was_replaced_writes_nothing(make: Making, evaluator: Evaluator) -> None:
    await automation(make)
    await evaluator.run_once()
    make.clock.forward(seconds=LEASE.total_seconds() + 1)
    other = Timed(make.database, make.clock)
    await emit(make, "a")

    assert await other.run_once() == 1
    assert await evaluator.run_once() == 0
    assert len(await rows(make.database, AutomationFiring, "id")) == 1
    assert [leader for (leader,) in await rows(make.database, LogReader, "leader")] == [other.id]


@pytest.mark.parametrize("seed", range(4))
async def test_firings_do_not_depend_on_rounds_processes_and_kills(make: Making, seed: int) -> None:
    random = Random(seed)
    for trigger in random.sample(TRIGGERS, 4):
        await automation(make, trigger)
    evaluators = [Timed(make.database, make.clock, page_size=random.choice([1, 3, 500])) for _ in range(2)]
    for _ in range(25):
        await emit(make, *random.choices("abc", k=random.randint(0, 3) + 1), resource=random.choice("xy"))
        make.clock.forward(seconds=random.choice([0.5, 3, 12]))
        for _ in range(random.randint(0, 2)):
            place = random.randrange(2)
            task = asyncio.ensure_future(evaluators[place].run_once())
            for _ in range(random.randint(0, 60)):
                await asyncio.sleep(0)
            if not task.done():
                # A killed process: what it had not committed is rolled back, and it forgets everything.
                task.cancel()
                evaluators[place] = Timed(make.database, make.clock, page_size=random.choice([1, 3, 500]))
            await asyncio.gather(task, return_exceptions=True)
            if random.random() < 0.5:
                make.clock.forward(seconds=LEASE.total_seconds() + 1)
    make.clock.forward(seconds=LEASE.total_seconds() + 1)
    last = Timed(make.database, make.clock)
    while await last.run_once():
        pass

    found = await rows(make.database, AutomationFiring, "id", "automation_id")
    assert found == await expected(make.database, make.clock())
    assert len(found) > 5
    assert await verify_automations(make.database, EPOCH) == []

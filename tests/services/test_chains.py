"""Automations that keep firing each other come to an end, whatever leads from one to the next."""

from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from runstate.core import states
from runstate.core.commands.deployments import pause_deployment
from runstate.database.bulk import table_of
from runstate.documents.states import RunKind, StateType
from runstate.rows import AutomationFiring, FlowRun, Transition
from runstate.services import actions
from tests.services.factories import Making
from tests.services.test_automations import Timed, automation, emit, log_of, rows

STOPPED = "runstate.automation.loop-stopped"


def on(*names: str) -> dict[str, Any]:
    """Return a trigger that fires at each event with one of these names."""
    return {"kind": "event", "posture": "REACTIVE", "expect": list(names)}


async def settle(make: Making, evaluator: Timed) -> None:
    """Evaluate and execute until nothing happens any more."""
    for _ in range(200):
        fired = await evaluator.run_once()
        if not await actions.run_once(make.batcher, make.clock()) and not fired:
            return
    pytest.fail("The automations do not come to an end.")


async def firings(make: Making) -> int:
    """Return the number of firings."""
    return len(await rows(make.database, AutomationFiring, "id"))


async def stopped(make: Making) -> int:
    """Return the number of loops that were stopped."""
    return [each.name for each in await log_of(make.database)].count(STOPPED)


async def test_an_automation_that_runs_a_deployment_whenever_it_has_run_is_stopped(make: Making) -> None:
    deployment, evaluator = await make.deployment(), Timed(make.database, make.clock)
    run = {"action": "run_deployment", "deployment_id": deployment}
    key = await automation(make, on("runstate.flow-run.Completed"), actions=[run])
    await evaluator.run_once()
    await make.flow_run(states.completed(), deployment_id=deployment)
    table = table_of(FlowRun)
    waiting = sa.select(table.c.id).where(table.c.state_type == StateType.SCHEDULED)
    for _ in range(25):
        await settle(make, evaluator)
        async with make.database.read() as connection:
            todo = (await connection.execute(waiting)).scalars().all()
        for each in todo:
            await make.flow_run_enters(each, states.completed(), force=True)

    assert (await firings(make), await stopped(make)) == (20, 1)
    (told,) = [each for each in await log_of(make.database) if each.name == STOPPED]
    assert told.resource["resource.id"] == f"runstate.automation.{key}"


async def test_automations_that_change_an_object_back_and_forth_are_stopped(make: Making) -> None:
    deployment, evaluator = await make.deployment(), Timed(make.database, make.clock)
    for verb in ("pause", "resume"):
        change = {"action": verb, "kind": "DEPLOYMENT", "id": deployment}
        await automation(make, on("runstate.deployment.updated"), actions=[change])
    await evaluator.run_once()
    await pause_deployment(make.batcher.context, deployment)
    await settle(make, evaluator)

    assert 2 <= await firings(make) <= 200
    assert await stopped(make) == 2


async def test_automations_that_react_to_all_events_of_automations_are_stopped(make: Making) -> None:
    for _ in range(2):
        await automation(make, on("a", "runstate.automation.triggered", "runstate.automation.action.*"))
    evaluator = Timed(make.database, make.clock)
    await evaluator.run_once()
    await emit(make, "a")
    await settle(make, evaluator)

    assert 20 < await firings(make) < 200
    assert await stopped(make) == 2
    # Another process that takes over comes to the same end.
    assert await Timed(make.database, make.clock).run_once() == 0


async def test_the_cause_of_a_run_is_that_of_its_task_runs_and_subflow_runs(make: Making) -> None:
    run, firing = await make.flow_run(), uuid4()
    await make.propose(RunKind.FLOW_RUN, run, states.completed(), cause=firing)
    await make.propose(RunKind.FLOW_RUN, run, states.running(), force=True)
    subflow, task = await make.subflow_run(run)
    await make.flow_run_enters(subflow, states.completed())

    causes: dict[UUID, list[UUID | None]] = {}
    for each, version, cause in await rows(make.database, Transition, "run_id", "version", "cause"):
        causes.setdefault(each, []).insert(version - 1, cause)
    assert causes[run] == [None, firing, firing]
    assert set(causes[subflow]) == set(causes[task]) == {firing}


async def test_a_call_ends_after_a_bounded_number_of_rounds(make: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstate.core.evaluation.evaluator.MOST_ROUNDS", 3)
    monkeypatch.setattr("runstate.core.evaluation.evaluator.MOST_FIRINGS", 4)
    await automation(make, on("a"))
    evaluator = Timed(make.database, make.clock)
    await evaluator.run_once()
    await emit(make, *"aaaaaaaaaaaaaaaaaaaa")

    found = [(await evaluator.run_once(), evaluator.is_behind) for _ in range(3)]
    assert [fired for fired, _ in found] == [12, 8, 0]
    assert found[0][1]
    assert len(set(await rows(make.database, AutomationFiring, "event_id"))) == 20

"""Events tell when work pools, queues and deployments become ready and when they no longer are, each once."""

from uuid import UUID

from runstate.core.commands.work_pools import CreateWorkPool, UpdateWorkPool, create_pool, queues_of, update_pool
from runstate.core.commands.workers import PollNames, WorkerHeartbeat, heartbeat, mark_poll
from runstate.services import statuses
from tests.services.factories import Making
from tests.services.test_automations import log_of

READY = ["work-pool.ready", "work-queue.ready", "deployment.ready"]


async def pool(make: Making) -> tuple[UUID, UUID]:
    """Create a pool; return its id and that of its queue."""
    made = (await create_pool(make.batcher.context, CreateWorkPool(name="pool"))).row
    async with make.database.read() as connection:
        (queue,) = await queues_of(connection, made.id)
    return made.id, queue.id


async def told(make: Making) -> list[str]:
    """Return the names of the events about statuses."""
    names = [each.name.removeprefix("runstate.") for each in await log_of(make.database)]
    return [each for each in names if each.endswith(("ready", "paused"))]


async def beat(make: Making) -> None:
    """Let the worker of the pool send a heartbeat."""
    await heartbeat(make.batcher.context, WorkerHeartbeat(work_pool="pool", worker="w", interval_seconds=10))


async def test_a_poll_makes_a_pool_a_queue_and_its_deployments_ready(make: Making) -> None:
    _, queue = await pool(make)
    await make.deployment(work_pool="pool")
    for _ in range(3):
        await mark_poll(make.batcher.context, PollNames("pool", "w"), [queue])
        make.clock.forward(seconds=20)

    assert await told(make) == READY
    assert await statuses.run_once(make.batcher, make.clock()) == 0
    make.clock.forward(seconds=100)
    assert await statuses.run_once(make.batcher, make.clock()) == 3
    assert await statuses.run_once(make.batcher, make.clock()) == 0
    assert sorted(await told(make)) == sorted([*READY, *(each.replace("ready", "not-ready") for each in READY)])
    (event,) = [each for each in await log_of(make.database) if each.name == "runstate.deployment.ready"]
    assert [each["resource.role"] for each in event.related] == ["flow", "work-queue", "work-pool"]


async def test_a_pause_and_its_end_are_told_with_the_event_before(make: Making) -> None:
    key, _ = await pool(make)
    for paused in (True, True, False):
        await update_pool(make.batcher.context, UpdateWorkPool(id=key, paused=paused))
    await beat(make)
    await update_pool(make.batcher.context, UpdateWorkPool(id=key, paused=True))
    make.clock.forward(minutes=6)
    await update_pool(make.batcher.context, UpdateWorkPool(id=key, paused=False))

    names = ["paused", "not-ready", "ready", "paused", "not-ready"]
    assert await told(make) == [f"work-pool.{each}" for each in names]
    about = [each for each in await log_of(make.database) if each.name.endswith(("ready", "paused"))]
    assert [each.follows for each in about] == [None, about[0].id, about[1].id, about[2].id, None]

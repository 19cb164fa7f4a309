"""Proposals in one batch get the same answers as proposals one after another, on both databases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from asyncpg import LockNotAvailableError
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from runstate.core.batch.decide import Environment
from runstate.core.batch.orchestrate import orchestrate
from runstate.core.batch.requests import CreateRun, Outcome, Request
from runstate.core.commands.run_inputs import RESUME
from runstate.core.policies import MARK_LATE
from runstate.core.states import (
    State,
    awaiting_retry,
    cancelling,
    completed,
    failed,
    late,
    paused,
    pending,
    running,
    scheduled,
)
from runstate.database import Database
from runstate.database.queries.orchestration import cached_states
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions, FlowRunPolicy, TaskRunPolicy
from runstate.documents.states import StateType
from runstate.feed import TRANSITIONS
from runstate.rows import FlowRun, TaskRun
from tests.core.factories import NOW, deployment, details, examples, flow_run, in_seconds, lease, limit, task_run
from tests.core.store_in_memory import proposal
from tests.core.stored import Cast, flow, opened, put
from tests.core.strategies import Anything, anything
from tests.databases import say

RUNS = ("deployed", "cancels", "alone", "subflow", "parent", "one", "two", "three", "late", "stray")
NEW = ("keyed", "same key", "unkeyed", "child", "same child", "new subflow", "task of keyed", "task of unkeyed")


def cast() -> tuple[Cast, Cast]:
    """Return the runs of a scenario, and the runs that it can create."""
    made = Cast()
    its_flow = made.add("flow", flow())
    one = made.add("one slot", limit(1, name=f"one-{made.own}"))
    few = made.add("two slots", limit(2, name=f"two-{made.own}"))
    for name, slots, decay in (("a", 1, 0), ("b", 2, 0), ("rate", 1, 0.1), ("off", 0, 0)):
        active = name != "off"
        made.add(f"tag:{name}", limit(slots, name=f"tag:{name}-{made.own}", slot_decay_per_second=decay, active=active))
    cancel = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW, grace_period_seconds=60)
    enqueues = made.add("enqueues", deployment(one, flow_id=its_flow.id))
    cancels = made.add("cancelling new ones", deployment(few, flow_id=its_flow.id, concurrency_options=cancel))
    retried = FlowRunPolicy(retries=1, retry_delay_seconds=5)

    def of_flow(deployed: Any = None, **columns: Any) -> FlowRun:
        return flow_run(flow_id=its_flow.id, deployment_id=deployed.id if deployed else None, policy=retried, **columns)

    def task(flow_run_id: Any, *tags: str, key: str | None = None) -> TaskRun:
        policy = TaskRunPolicy(retries=1, retry_delays_seconds=(5,))
        own = {} if key is None else {"dynamic_key": key}
        return task_run(flow_run_id=flow_run_id, tags=[f"{tag}-{made.own}" for tag in tags], policy=policy, **own)

    deployed = made.add("deployed", of_flow(enqueues))
    made.add("cancels", of_flow(cancels))
    alone = made.add("alone", of_flow())
    parent = made.add("parent", task(deployed.id, "a"))
    made.add("subflow", of_flow(enqueues, parent_task_run_id=parent.id))
    for name, tags in (("one", ["a"]), ("two", ["a", "b"]), ("three", ["b", "rate", "off"]), ("late", ["rate"])):
        made.add(name, task(alone.id if name == "late" else deployed.id, *tags))
    stray = made.add("stray", task(None, "a", "b"))
    held = made.add("held", limit(3, name=f"held-{made.own}", occupied=3))
    for slots, automatic in ((1, False), (2, True)):
        made.add(f"{slots} held", lease(held, run_id=stray.id, slots=slots, automatic=automatic))

    new = Cast(own=made.own)
    keyed = new.add("keyed", of_flow(enqueues, idempotency_key="key"))
    new.add("same key", of_flow(idempotency_key="key"))
    unkeyed = new.add("unkeyed", of_flow(cancels))
    new.add("child", task(deployed.id, "a", key="1"))
    new.add("same child", task(deployed.id, key="1"))
    other = new.add("other parent", task(unkeyed.id, "b"))
    new.add("new subflow", of_flow(parent_task_run_id=parent.id))
    new.add("task of keyed", task(keyed.id, "a"))
    new.add("task of unkeyed", task(unkeyed.id, "b"))
    new.add("subflow of other parent", of_flow(parent_task_run_id=other.id))
    return made, new


@dataclass(frozen=True)
class Propose:
    """A step: a proposal to a run."""

    run: str
    said: Callable[[FlowRun | TaskRun, datetime, str], Request]


@dataclass(frozen=True)
class Create:
    """A step: the creation of a run."""

    run: str
    kind: StateType = StateType.PENDING


Step = Propose | Create
Story = Sequence[tuple[float, Sequence[Step]]]
"""Steps that are submitted together, with the seconds that pass before them."""


class Scenario:
    """A scenario with a cast of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.cast, self.new = cast()
        self.outcomes: list[Outcome] = []

    async def begin(self) -> None:
        """Insert the rows of the cast."""
        await put(self.database, *self.cast.rows.values())
        for name, row in self.new.rows.items():
            self.cast.add(name, row)

    def request(self, step: Step, now: datetime) -> Request:
        """Return the request of a step."""
        run: Any = self.cast.rows[step.run]
        if isinstance(step, Create):
            return CreateRun(run=run.replace(created=now, updated=now), state=State(type=step.kind))
        return step.said(run, now, self.cast.own)

    async def ask(self, seconds: float, steps: Sequence[Step]) -> None:
        """Submit steps in one transaction."""
        environment = Environment(now=in_seconds(seconds), draw=lambda: 0.5, new_id=uuid7)
        requests = [self.request(step, environment.now) for step in steps]
        self.outcomes += await orchestrate(self.database, requests, environment)

    async def contents(self) -> dict[str, Any]:
        """Return the content of the database and the outcomes."""
        return await self.cast.contents(self.database, self.outcomes)


async def play(database: Database, story: Story) -> dict[str, Any]:
    """Return the result of a story; check that it is the same in one batch as one after another."""
    together, apart = Scenario(database), Scenario(database)
    for scenario in (together, apart):
        await scenario.begin()
    for seconds, steps in story:
        await together.ask(seconds, steps)
        for step in steps:
            await apart.ask(seconds, [step])
    contents = await together.contents()
    assert contents == await apart.contents()
    return contents


def to(run: str, state: State | StateType, **more: Any) -> Propose:
    """Return a step that proposes a state to a run."""
    proposed = State(type=state) if isinstance(state, StateType) else state

    def said(row: FlowRun | TaskRun, now: datetime, own: str) -> Request:
        key = proposed.details.cache_key
        return proposal(row, proposed.with_details(cache_key=key + own) if key else proposed, **more)

    return Propose(run, said)


def resume(run: str, **more: Any) -> Propose:
    """Return a step that resumes a paused run."""
    return to(
        run, running(), policy=RESUME, fingerprint_source="resume", run_input_to_store=("response", {"a": 1}), **more
    )


KEYED = details(cache_key="k")
STORIES: dict[str, Story] = {
    "one run twice": [(0, [to("alone", pending()), to("alone", running()), to("alone", completed())])],
    "one run twice, and the second is refused": [(0, [to("alone", pending()), to("alone", pending())])],
    "a retry": [
        (0, [to("alone", running()), to("alone", failed()), to("alone", running())]),
        (9, [to("alone", running()), to("alone", failed(data={"a": 1}))]),
    ],
    "a flow run with its task runs": [
        (0, [to("one", running()), to("deployed", running()), to("one", running()), to("two", running())]),
        (1, [to("deployed", paused(NOW, timeout_seconds=9)), to("three", running()), to("one", completed())]),
        (2, [to("deployed", completed()), to("two", running())]),
    ],
    "task runs that share a limit": [
        (0, [to("alone", running()), to("late", running()), to("stray", running())]),
        (1, [to("deployed", running()), to("one", running()), to("stray", failed()), to("one", running())]),
        (2, [to("two", running()), to("one", completed()), to("two", running()), to("three", running())]),
        (3, [to("late", completed()), to("three", running()), to("two", cancelling())]),
    ],
    "slots that free themselves": [
        (0, [to("alone", running()), to("deployed", running()), to("late", running()), to("three", running())]),
        (4, [to("three", running()), to("late", completed()), to("three", running())]),
        (5, [to("late", running()), to("three", completed()), to("late", running())]),
    ],
    "flow runs that share a deployment's limit": [
        (0, [to("deployed", pending()), to("subflow", pending()), to("cancels", pending())]),
        (1, [Create("unkeyed"), to("unkeyed", running()), to("deployed", running()), to("unkeyed", pending())]),
        (40, [to("deployed", completed()), to("subflow", running()), to("deployed", running())]),
        (41, [to("subflow", awaiting_retry(NOW)), to("deployed", running())]),
    ],
    "a subflow run and its task run": [
        (0, [to("deployed", running()), to("subflow", running()), to("parent", running())]),
        (1, [to("subflow", failed(message="m", data={"a": 1})), to("parent", completed()), to("subflow", running())]),
        (9, [to("subflow", completed(data={"type": "unpersisted"})), Create("new subflow")]),
    ],
    "results under cache keys": [
        (0, [to("stray", completed(data={"type": "reference"}, details=KEYED)), to("late", running(details=KEYED))]),
        (1, [to("alone", running()), to("late", running(details=KEYED)), to("late", running())]),
        (2, [to("deployed", running()), to("one", running(details=KEYED))]),
        (3, [to("two", running(details=details(cache_key="k", refresh_cache=True))), to("two", completed(data=[2]))]),
    ],
    "results that expire": [
        (0, [to("stray", completed(data={"n": 1}, details=details(cache_key="k", cache_expiration=in_seconds(5))))]),
        (1, [to("alone", running()), to("late", running(details=KEYED))]),
        (9, [to("deployed", running()), to("one", running(details=KEYED)), to("two", running(details=KEYED))]),
    ],
    "a result that is replaced by one that has expired already": [
        (0, [to("stray", completed(data={"n": 1}, details=KEYED)), to("alone", running())]),
        (9, [to("late", completed(details=details(cache_key="k", cache_expiration=in_seconds(5))))]),
        (9, [to("deployed", running()), to("one", running(details=KEYED))]),
    ],
    "a result that is replaced by one that has expired already, all at once": [
        (0, [to("stray", completed(data={"n": 1}, details=KEYED)), to("deployed", running())]),
        (
            9,
            [
                to("late", completed(details=details(cache_key="k", cache_expiration=in_seconds(5)))),
                to("one", running(details=KEYED)),
            ],
        ),
    ],
    "a cached result of a cached result": [
        (0, [to("alone", running()), to("stray", completed(data={"n": 1}, details=KEYED))]),
        (1, [to("late", running(details=KEYED)), to("late", completed(data={"n": 2}, details=KEYED))]),
        (2, [to("deployed", running()), to("one", running(details=KEYED)), to("two", running(details=KEYED))]),
    ],
    "dry runs": [
        (0, [to("alone", running(), dry_run=True), to("alone", pending()), to("alone", running(), dry_run=True)]),
        (1, [to("stray", running(), dry_run=True), to("stray", running()), to("stray", failed(), dry_run=True)]),
    ],
    "idempotency keys": [
        (0, [to("alone", running(), idempotency_key="k"), to("alone", running(), idempotency_key="k")]),
        (1, [to("alone", running(), idempotency_key="k"), to("alone", failed(), idempotency_key="k")]),
        (2, [to("alone", failed(), idempotency_key="l"), to("alone", failed(), idempotency_key="l", dry_run=True)]),
        (3, [to("cancels", running(), idempotency_key="k"), to("alone", failed(), idempotency_key="l")]),
    ],
    "expected versions": [
        (0, [to("alone", running(), expected_version=0), to("alone", running(), expected_version=0)]),
        (1, [to("alone", running(), expected_version=1), to("alone", failed(), expected_version=7)]),
    ],
    "what is not there": [(0, [to("keyed", running()), to("alone", running()), to("child", running())])],
    "new runs": [
        (0, [Create("keyed"), Create("same key"), to("keyed", running()), to("same key", running())]),
        (1, [Create("same key"), Create("unkeyed", StateType.RUNNING), Create("keyed"), Create("unkeyed")]),
    ],
    "a new run before it is there": [(0, [to("unkeyed", running()), Create("unkeyed"), to("unkeyed", running())])],
    "new task runs": [
        (0, [to("deployed", running()), Create("child"), Create("same child"), to("child", running())]),
        (1, [Create("same child"), to("child", completed()), Create("task of unkeyed")]),
    ],
    "new runs of new runs": [
        (0, [Create("task of unkeyed"), Create("unkeyed", StateType.RUNNING)]),
        (0, [Create("task of unkeyed"), to("task of unkeyed", failed())]),
        (1, [to("task of unkeyed", running()), Create("keyed"), Create("same key"), Create("task of keyed")]),
        (2, [Create("other parent"), Create("subflow of other parent"), to("subflow of other parent", running())]),
    ],
    "a new run of one that was there already": [
        (0, [Create("same key")]),
        (1, [Create("keyed"), Create("task of keyed"), to("keyed", running())]),
    ],
    "a scheduled run": [
        (0, [to("alone", scheduled(NOW, in_seconds(5))), to("alone", pending()), to("alone", running())]),
        (5, [to("alone", running()), to("alone", scheduled(NOW))]),
    ],
    "a pause that is ended with an input": [
        (0, [to("alone", running()), to("alone", paused(NOW, pause_key="here")), resume("alone", expected_version=7)]),
        (1, [resume("alone", expected_version=2, idempotency_key="k"), resume("alone", idempotency_key="k")]),
        (2, [resume("alone"), to("alone", paused(NOW, pause_key="here")), to("alone", paused(NOW)), resume("alone")]),
    ],
    "a pause of a subflow run that is ended with an input": [
        (0, [to("subflow", running()), to("subflow", paused(NOW))]),
        (1, [resume("subflow", expected_version=2, idempotency_key="k"), resume("subflow", idempotency_key="k")]),
    ],
    "a late run": [
        (0, [to("cancels", scheduled(NOW)), to("deployed", scheduled(NOW)), to("alone", running())]),
        (9, [to("deployed", late(NOW), policy=MARK_LATE), to("deployed", late(NOW), policy=MARK_LATE)]),
        (10, [to("cancels", late(NOW), policy=MARK_LATE), to("alone", late(NOW), policy=MARK_LATE)]),
    ],
    "slots that a client holds for a run": [
        (0, [to("stray", running()), to("stray", awaiting_retry(NOW)), to("stray", cancelling())]),
        (1, [to("stray", completed()), to("stray", running(), force=True), to("stray", failed())]),
    ],
    "a clock that goes back": [
        (9, [to("alone", running()), to("stray", running())]),
        (0, [to("alone", completed()), to("stray", completed()), to("deployed", running()), to("one", running())]),
    ],
}


@pytest.mark.parametrize("name", STORIES)
async def test_a_batch_gives_the_same_result_as_single_requests(shared: Database, name: str) -> None:
    contents = await play(shared, STORIES[name])

    assert len(contents["outcomes"]) == sum(len(steps) for _, steps in STORIES[name])


def step_of(run: str, said: Anything | StateType) -> Step:
    """Return a random step; a bare type creates the run."""
    return Create(run, said) if isinstance(said, StateType) else Propose(run, said)


def creates_each_once(steps: Sequence[Step]) -> bool:
    """Return whether no run is created twice: ids are generated for each creation."""
    created = [step.run for step in steps if isinstance(step, Create)]
    return len(created) == len(set(created))


steps = st.builds(step_of, st.sampled_from([*RUNS, *NEW]), anything) | st.builds(
    step_of, st.sampled_from(NEW), st.sampled_from(StateType)
)
batches = st.lists(steps, min_size=1, max_size=7).filter(creates_each_once)
stories = st.lists(st.tuples(st.integers(-5, 60), batches), min_size=1, max_size=3)


@examples(15)
@given(story=stories)
async def test_a_random_batch_gives_the_same_result_as_single_requests(shared: Database, story: Story) -> None:
    await play(shared, [(-9, [to("deployed", running()), to("alone", running())]), *story])


async def statements(database: Database, requests: list[Any]) -> int:
    """Return the number of statements for requests, without BEGIN and COMMIT."""
    begins = 1 if database.is_sqlite else 0
    before = database.statements
    await orchestrate(database, requests, Environment(now=NOW, draw=lambda: 0.5, new_id=uuid7))
    return database.statements - before - begins


@pytest.mark.parametrize("count", [1, 2, 200])
async def test_a_batch_of_task_runs_without_limits_takes_at_most_six_statements(database: Database, count: int) -> None:
    its_flow = flow()
    parent = flow_run(flow_id=its_flow.id)
    tasks = [task_run(flow_run_id=parent.id, dynamic_key=str(number)) for number in range(count)]
    await put(database, its_flow, parent, *tasks)
    await statements(database, [proposal(parent, running())])

    for state in (pending(), running(), completed()):
        taken = await statements(database, [proposal(task, state) for task in tasks])
        assert taken <= 6


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_a_batch_with_requests_of_all_kinds_takes_at_most_fourteen_statements(database: Database) -> None:
    scenario = Scenario(database)
    await scenario.begin()
    await scenario.ask(0, [to("deployed", running()), to("alone", running()), to("alone", paused(NOW))])
    await scenario.ask(1, [to("one", running()), to("stray", completed(data={"type": "reference"}, details=KEYED))])
    everything: list[Step] = [
        *(Create(name) for name in ("keyed", "same key", "child", "same child", "new subflow", "unkeyed")),
        resume("alone"),
        to("cancels", running(), idempotency_key="key"),
        to("subflow", running()),
        to("one", completed()),
        to("two", running()),
        to("late", running(details=KEYED)),
        to("stray", failed()),
    ]
    requests = [scenario.request(step, in_seconds(2)) for step in everything]

    assert await statements(database, requests) <= 14


@pytest.mark.parametrize("count", [1, 2, 60])
async def test_creating_many_task_runs_takes_as_many_statements_as_creating_one(database: Database, count: int) -> None:
    its_flow = flow()
    parent = flow_run(flow_id=its_flow.id)
    await put(database, its_flow, parent)
    new = [task_run(flow_run_id=parent.id, dynamic_key=str(number)) for number in range(count)]

    taken = await statements(database, [CreateRun(run=task, state=pending()) for task in new])

    assert taken <= 6


async def test_the_feed_is_notified_once_after_a_state_was_written(database: Database) -> None:
    scenario, channels = Scenario(database), list[str]()
    await scenario.begin()
    database.listeners.append(channels.append)
    environment = Environment(now=NOW, draw=lambda: 0.5, new_id=uuid7)
    for step in (to("alone", paused(NOW)), to("alone", running(), dry_run=True), to("alone", running())):
        await orchestrate(database, [scenario.request(step, NOW)], environment)

    assert channels == [TRANSITIONS.channel]


async def test_data_that_marks_a_missing_result_is_answered_and_not_stored(database: Database) -> None:
    scenario = Scenario(database)
    await scenario.begin()
    await scenario.ask(0, [to("stray", completed(data={"type": "unpersisted"})), to("alone", completed(data={"a": 1}))])
    contents = await scenario.contents()

    assert [said["written"]["data"] for said in contents["outcomes"]] == [{"type": "unpersisted"}, {"a": 1}]
    assert (contents["states"]["stray 1"]["data"], contents["states"]["alone 1"]["data"]) == (None, {"a": 1})


async def test_a_result_that_is_about_to_be_copied_cannot_be_deleted_concurrently(postgresql_url: str) -> None:
    source = task_run()
    delete = "SET lock_timeout = '10ms'; DELETE FROM task_run"
    async with opened(postgresql_url) as database:
        await put(database, source)
        environment = Environment(now=NOW, draw=lambda: 0.5, new_id=uuid7)
        await orchestrate(database, [proposal(source, completed(data={"a": 1}, details=KEYED))], environment)
        async with database.write() as transaction:
            await cached_states(transaction.connection, {"k"}, NOW)
            with pytest.raises(LockNotAvailableError):
                await say(postgresql_url, delete)
        await say(postgresql_url, delete)

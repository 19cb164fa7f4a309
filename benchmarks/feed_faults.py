"""Delivery of transitions under faults: each subscriber must receive every transition once and in order.

    python -m benchmarks.feed_faults --database postgresql --seconds 120
    python -m benchmarks.feed_faults --database sqlite --seconds 120

Ten writers change 500 runs: half of them through the servers, half in transactions of their own that last up to half a
second. Twenty subscribers with different filters disconnect at random and resume after their cursor on any server.
Meanwhile a server is killed with SIGKILL and restarted, and so is PostgreSQL: once the whole server, just after some
rollbacks, and once a single backend. At the end the transitions that each subscriber received are compared with the
tables.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import sqlalchemy as sa
import typer
import websockets

from benchmarks.faults import UNREACHABLE, Server, environment, execute, inject_faults, wait_until_available
from runstate.database import Database
from runstate.documents.states import RunKind, StateDetails, StateType
from runstate.rows import FlowRun, FlowRunState, TaskRunState, Transition

FLOWS, RUNS, WRITERS, SUBSCRIBERS = 5, 500, 10, 20
TYPES = [StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.COMPLETED, StateType.FAILED]
DOCUMENT = """subscription($where: TransitionWhere, $after: String) { transitions(where: $where, after: $after) {
  cursor transitions { runId version } } }"""
Entry = Any
Told = tuple[str, int]


@dataclass
class Facts:
    """Flows and runs to subscribe to."""

    flows: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Filter:
    """Condition of a subscription, and the same condition in Python."""

    where: dict[str, Any]
    matches: Callable[[Entry], bool]


def _is_one_of(values: list[str], column: str, entry: Entry) -> bool:
    return str(getattr(entry, column)) in values


def filters(chance: random.Random, facts: Facts) -> list[Filter]:
    """Return a filter for each subscriber."""
    some = [chance.sample(facts.runs, 25) for _ in range(6)]
    by_runs = [Filter({"runIds": runs}, partial(_is_one_of, runs, "run_id")) for runs in some[:3]]
    by_flow_runs = [Filter({"flowRunIds": runs}, partial(_is_one_of, runs, "flow_run_id")) for runs in some[3:]]
    by_flows = [Filter({"flowIds": [flow]}, partial(_is_one_of, [flow], "flow_id")) for flow in facts.flows[:3]]
    by_types = [
        Filter({"stateTypes": [kind.name]}, partial(_is_one_of, [str(kind)], "state_type")) for kind in TYPES[:3]
    ]
    return [
        *([Filter({}, lambda _: True)] * 4),
        *by_runs,
        *by_flow_runs,
        *by_flows,
        *by_types,
        Filter({"stateNames": ["Completed", "Failed"]}, lambda entry: entry.state_name in {"Completed", "Failed"}),
        Filter({"tags": {"any": ["t1", "t2"]}}, lambda entry: not {"t1", "t2"}.isdisjoint(entry.tags)),
        Filter({"runKind": "TASK_RUN"}, lambda entry: entry.run_kind is RunKind.TASK_RUN),
        Filter(
            {"tags": {"none": ["t0"]}, "stateTypes": ["RUNNING"], "runKind": "FLOW_RUN"},
            lambda entry: (
                "t0" not in entry.tags and entry.state_type is StateType.RUNNING and entry.run_kind is RunKind.FLOW_RUN
            ),
        ),
    ][:SUBSCRIBERS]


class Subscriber:
    """A client that disconnects at random and resumes after its cursor on any server."""

    field, document = "transitions", DOCUMENT

    def __init__(self, filter_: Filter, servers: list[Server], cursor: str, chance: random.Random) -> None:
        self.filter, self.servers, self.cursor, self.chance = filter_, servers, cursor, chance
        self.received: list[Told] = []
        self.connections = 0
        self.refusals = Counter[str]()
        self.expected: set[Told] | None = None
        """Transitions to receive before the end; None while something is written."""

    async def listen(self) -> None:
        """Receive transitions until all expected ones have come."""
        while self.expected is None or not self.expected <= set(self.received):
            try:
                async with asyncio.timeout(self.chance.expovariate(1 / 1.5)):
                    await self._connect(self.chance.choice(self.servers))
            except UNREACHABLE:
                await asyncio.sleep(0.05)

    async def _connect(self, server: Server) -> None:
        protocol: Any = ["graphql-transport-ws"]
        async with websockets.connect(
            f"ws://{server.address}/graphql", subprotocols=protocol, close_timeout=0.1
        ) as socket:
            await socket.send('{"type": "connection_init"}')
            await socket.recv()
            payload = {"query": self.document, "variables": self.variables}
            await socket.send(orjson.dumps({"type": "subscribe", "id": "1", "payload": payload}).decode())
            self.connections += 1
            async for text in socket:
                if not self._take(orjson.loads(text)):
                    return

    def _take(self, message: dict[str, Any]) -> bool:
        if message["type"] != "next":
            errors = message.get("payload") or [{}]
            self.refusals[errors[0].get("extensions", {}).get("code", message["type"])] += 1
            return False
        batch = message["payload"]["data"][self.field]
        self.received += map(self.told, batch[self.field])
        self.cursor = batch["cursor"]
        return True

    @property
    def variables(self) -> dict[str, Any]:
        """Variables of the subscription."""
        return {"where": self.filter.where, "after": self.cursor}

    @staticmethod
    def told(entry: dict[str, Any]) -> Told:
        """Return the run of an entry, and a number that rises in the run."""
        return entry["runId"], entry["version"]

    def verdict(self) -> tuple[int, int, int, int]:
        """Return the numbers of expected, lost, repeated and disordered entries."""
        expected = self.expected or set()
        got = Counter(self.received)
        last: dict[str, int] = {}
        disorder = 0
        for run, number in self.received:
            disorder += number <= last.get(run, -1)
            last[run] = max(number, last.get(run, -1))
        twice = sum(number - 1 for number in got.values())
        return len(expected), len(expected - set(got)) + len(set(got) - expected), twice, disorder - twice


class Writer:
    """A writer of states, through a server or in transactions of its own."""

    def __init__(self, facts: Any, servers: list[Server], database: Database, chance: random.Random) -> None:
        self.facts, self.servers, self.database, self.chance = facts, servers, database, chance
        self.committed = self.given_up = 0

    async def propose(self) -> None:
        """Propose states for some runs to a server."""
        async with httpx.AsyncClient(base_url=f"http://{self.chance.choice(self.servers).address}") as client:
            proposals = [
                {"run": {"flowRunId": run}, "state": {"type": self.chance.choice(TYPES).name}, "force": True}
                for run in self.chance.choices(self.facts.runs, k=self.chance.choice([1, 1, 5, 20]))
            ]
            document = "mutation($i: [ProposeStateInput!]!) { proposeStates(inputs: $i) { __typename } }"
            await client.post("/graphql", json={"query": document, "variables": {"i": proposals}}, timeout=5)

    async def write(self) -> None:
        """Write states of some runs in a transaction that lasts for a while; sometimes roll it back."""
        patience = 0.02 if self.database.is_sqlite else 0.5
        async with self.database.writer.connect() as connection, connection.begin() as transaction:
            if not self.database.is_sqlite and self.chance.random() < 0.3:
                await connection.execute(sa.select(sa.func.pg_current_xact_id()))
            for run in sorted(self.chance.sample(self.facts.runs, self.chance.choice([1, 2, 5]))):
                await self._move(connection, UUID(run))
            await asyncio.sleep(self.chance.choice([0, 0, 0.01, patience]))
            if self.chance.random() < 0.15:
                await transaction.rollback()

    async def _move(self, connection: Any, key: UUID) -> None:
        run = (await connection.execute(sa.select(FlowRun).where(FlowRun.id == key).with_for_update())).one()
        entered, state, now = self.chance.choice(TYPES), uuid4(), datetime.now(UTC)
        now = max(now, run.state_timestamp)
        name = entered.name.title()
        said = {"type": entered, "name": name, "timestamp": now, "version": run.version + 1, "created": now}
        said |= {
            "id": state,
            "updated": now,
            "run_id": key,
            "details": StateDetails(),
            "persisted": False,
            "actor": "w",
        }
        await connection.execute(sa.insert(FlowRunState).values(said))
        moved = {"state_id": state, "state_type": entered, "state_name": name, "state_timestamp": now}
        await connection.execute(sa.update(FlowRun).where(FlowRun.id == key).values(version=run.version + 1, **moved))
        told = {
            "run_kind": RunKind.FLOW_RUN,
            "run_id": key,
            "flow_run_id": key,
            "flow_id": run.flow_id,
            "occurred": now,
        }
        told |= {"version": run.version + 1, "state_id": state, "state_type": entered, "state_name": name}
        told |= {"previous_state_type": run.state_type, "previous_state_name": run.state_name, "tags": run.tags}
        await connection.execute(sa.insert(Transition).values(told))

    async def work(self, until: float, act: Callable[[], Any]) -> None:
        """Repeat an action until a time; failures, as while something is killed, are counted."""
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(10):
                    await act()
                self.committed += 1
            except (*UNREACHABLE, sa.exc.SQLAlchemyError):
                self.given_up += 1
                await asyncio.sleep(0.05)
            await asyncio.sleep(self.chance.expovariate(1 / 0.03))


async def prepare(server: Server, chance: random.Random) -> Facts:
    """Create flows and flow runs."""
    facts = Facts()
    async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=60) as client:
        do = partial(execute, client)
        for number in range(FLOWS):
            create = """mutation($n: String!) { it: createFlow(input: {name: $n}) {
              ... on CreateFlowPayload { flow { id } } } }"""
            facts.flows.append((await do(create, n=f"flow-{number}"))["it"]["flow"]["id"])
        create = """mutation($f: ID!, $t: [String!]) { it: createFlowRun(input: {flowId: $f, tags: $t}) {
          ... on CreateFlowRunPayload { flowRun { id } } } }"""
        for _ in range(RUNS):
            tags = [f"t{number}" for number in chance.sample(range(5), chance.randint(0, 2))]
            made_run = await do(create, f=chance.choice(facts.flows), t=tags)
            facts.runs.append(made_run["it"]["flowRun"]["id"])
    return facts


async def make_task_runs(writer: Writer) -> None:
    """Create a task run, which is a transition of the other kind of run."""
    create = """mutation($i: CreateTaskRunInput!) { createTaskRun(input: $i) { __typename } }"""
    given = {"flowRunId": writer.chance.choice(writer.facts.runs), "taskKey": "t", "dynamicKey": str(uuid4())}
    async with httpx.AsyncClient(base_url=f"http://{writer.chance.choice(writer.servers).address}") as client:
        await client.post("/graphql", json={"query": create, "variables": {"i": given}}, timeout=5)


async def cursor_of(server: Server) -> str:
    """Return the cursor of the end of the log."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{server.address}/graphql", json={"query": "{ transitionCursor }"})
        return str(answer.json()["data"]["transitionCursor"])


async def log_after(database: Database, seq: int) -> list[Entry]:
    """Return the transitions after a number. Exit with 1 if there are not as many transitions as states."""
    async with database.read() as connection:
        entries = list(await connection.execute(sa.select(Transition).where(Transition.seq > seq)))
        logged = await connection.scalar(sa.select(sa.func.count()).select_from(Transition))
        states = [
            await connection.scalar(sa.select(sa.func.count()).select_from(state)) or 0
            for state in (FlowRunState, TaskRunState)
        ]
    if logged != sum(states):
        print(f"the log has {logged} entries, but there are {sum(states)} states")
        raise typer.Exit(1)
    return entries


async def run(kind: str, seconds: float, seed: int) -> bool:
    """Run the benchmark. Return whether no transition was lost, repeated or disordered."""
    chance = random.Random(seed)
    async with environment(kind) as (url, servers, postgres):
        database = Database(url)
        facts = await prepare(servers[0], chance)
        cursor = await cursor_of(servers[0])
        async with database.read() as connection:
            start = await connection.scalar(sa.select(sa.func.max(Transition.seq)))
        subscribers = [Subscriber(each, servers, cursor, chance) for each in filters(chance, facts)]
        listening = [asyncio.create_task(subscriber.listen()) for subscriber in subscribers]
        writers = [Writer(facts, servers, database, chance) for _ in range(WRITERS)]
        until = time.monotonic() + seconds
        acts = [writer.propose if number % 2 else writer.write for number, writer in enumerate(writers)]
        acts[1] = lambda: make_task_runs(writers[1])
        work = [writer.work(until, act) for writer, act in zip(writers, acts, strict=True)]
        await asyncio.gather(inject_faults(servers, postgres, seconds), *work)
        await wait_until_available(database)
        entries = await log_after(database, int(start or 0))
        for subscriber in subscribers:
            told = {(str(entry.run_id), entry.version) for entry in entries if subscriber.filter.matches(entry)}
            subscriber.expected = told
        await asyncio.wait(listening, timeout=60)
        for task in listening:
            task.cancel()
        await database.close()
    print(
        f"{len(entries)} transitions in {seconds:.0f} s; {sum(writer.given_up for writer in writers)} attempts failed"
    )
    return report(subscribers)


def report(subscribers: Sequence[Subscriber]) -> bool:
    """Print a line for each subscriber. Return whether all received what they should."""
    print(f"{'expected':>9} {'lost':>5} {'twice':>6} {'disorder':>9} {'connections':>12}  filter")
    verdicts = [subscriber.verdict() for subscriber in subscribers]
    for subscriber, (expected, lost, twice, disorder) in zip(subscribers, verdicts, strict=True):
        condition = orjson.dumps(subscriber.filter.where).decode()[:60]
        refusals = dict(subscriber.refusals)
        print(f"{expected:9} {lost:5} {twice:6} {disorder:9} {subscriber.connections:12}  {condition} {refusals or ''}")
    totals = [sum(column) for column in zip(*verdicts, strict=True)]
    print(f"{totals[0]:9} {totals[1]:5} {totals[2]:6} {totals[3]:9}  in all")
    return not any(totals[1:])


def main(database: str = "postgresql", seconds: float = 120, seed: int = 1) -> None:
    """Run the benchmark. Exit with 1 if a transition was lost, repeated or disordered."""
    if not asyncio.run(run(database, seconds, seed)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

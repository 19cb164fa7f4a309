"""Exactly-once firings and actions of automations while servers and the database are killed.

    python -m benchmarks.automation_faults --seconds 100

Starts PostgreSQL and two servers, creates 50 automations, and appends events at a fixed rate. Every ten seconds one of
the servers is killed with SIGKILL and started again; in the middle, PostgreSQL is restarted without a shutdown. Then it
waits until nothing is left to do, and compares: the acknowledged events with the log, the firings and windows with the
log (`runstate verify`), the firings of single events with the events themselves, and the actions with what they did.
"""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import httpx
import sqlalchemy as sa
import typer
import uvloop

from benchmarks.faults import UNREACHABLE, Postgres, Server, environment, execute, wait_until_available
from runstate.core.checks.automations import verify_automations
from runstate.database import Database
from runstate.documents.actions import ActionStatus
from runstate.rows import Automation, AutomationActionRun, AutomationFiring, FlowRun, StoredEvent
from runstate.rows.base import EPOCH

EMIT: Final = """mutation($input: EmitEventsInput!) { emitEvents(input: $input) {
  __typename ... on EmitEventsPayload { ids } } }"""
CREATE: Final = """mutation($input: CreateAutomationInput!) { createAutomation(input: $input) {
  ... on CreateAutomationPayload { automation { id } } ... on Problem { message } } }"""
DEPLOY: Final = """mutation { createFlow(input: { name: "f" }) { ... on CreateFlowPayload { flow { id } } } }"""
DEPLOYMENT: Final = """mutation($flow: ID!) { createDeployment(input: { flowId: $flow, name: "d" }) {
  ... on CreateDeploymentPayload { deployment { id } } } }"""
CLIENTS: Final = 4
BATCH: Final = 10
SINGLE: Final = 20
"""Automations that fire at each event of their name."""
SETTLED_SECONDS: Final = 15.0


def triggers() -> list[dict[str, Any]]:
    """Return 50 triggers of all kinds."""
    each = [{"event": {"posture": "REACTIVE", "expect": [f"order.{place}"]}} for place in range(SINGLE)]
    key = [{"label": "resource.id"}]
    several = [
        {"event": {"posture": "REACTIVE", "expect": [f"order.{place}"], "threshold": 7, "forEach": key}}
        for place in range(10)
    ]
    silent = [
        {"event": {"posture": "PROACTIVE", "expect": [f"order.{place}"], "withinSeconds": 10, "threshold": 80}}
        for place in range(5)
    ]
    started = {"posture": "PROACTIVE", "after": ["order.1"], "withinSeconds": 10, "forEach": key}
    after = [{"event": {**started, "expect": [f"order.{place}"]}} for place in range(2, 7)]
    pairs = [[each[place], each[place + 1]] for place in range(10)]
    compound = [{"compound": {"triggers": pair, "withinSeconds": 5}} for pair in pairs[:5]]
    sequence = [{"sequence": {"triggers": pair}} for pair in pairs[5:]]
    return [*each, *several, *silent, *after, *compound, *sequence]


class Emitter:
    """Appends events, each batch until it is acknowledged."""

    def __init__(self, servers: list[Server], until: float, rate: float) -> None:
        self.servers, self.until, self.rate = servers, until, rate
        self.acknowledged = list[str]()

    async def run(self, place: int) -> None:
        """Append batches at the rate of one client."""
        number, began = place, time.monotonic()
        while time.monotonic() < self.until:
            batch = [self.event(number + each) for each in range(BATCH)]
            while not await self.append(batch, number):
                number += 1
                await asyncio.sleep(0.2)
            self.acknowledged += [each["id"] for each in batch]
            number += BATCH
            due = began + (number - place) / (self.rate / CLIENTS)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def event(self, number: int) -> dict[str, Any]:
        """Return an event."""
        resource = {"resourceId": f"order.{number % 13}"}
        return {"id": str(uuid4()), "name": f"order.{number % SINGLE}", "resource": resource}

    async def append(self, batch: list[dict[str, Any]], number: int) -> bool:
        """Send a batch to one of the servers; return whether it was acknowledged."""
        server = self.servers[number % len(self.servers)]
        with suppress(*UNREACHABLE, KeyError, ValueError, TypeError):
            async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=5) as client:
                answer = await execute(client, EMIT, input={"events": batch})
                return bool(answer["emitEvents"]["ids"])
        return False


async def create(server: Server) -> None:
    """Create the automations: half of them run a deployment, the others do nothing."""
    async with httpx.AsyncClient(base_url=f"http://{server.address}", timeout=30) as client:
        flow = (await execute(client, DEPLOY))["createFlow"]["flow"]["id"]
        deployment = (await execute(client, DEPLOYMENT, flow=flow))["createDeployment"]["deployment"]["id"]
        run = {"runDeployment": {"deploymentId": deployment}}
        for place, trigger in enumerate(triggers()):
            actions = [{"doNothing": True}, *([run] if place % 10 == 0 else [])]
            made = await execute(client, CREATE, input={"name": str(place), "trigger": trigger, "actions": actions})
            if "automation" not in made["createAutomation"]:
                raise RuntimeError(made)


async def kill(servers: list[Server], postgres: Postgres, seconds: float, every: float) -> None:
    """Kill a server again and again, and the database once."""
    began, number, is_restarted = time.monotonic(), 0, False
    while (passed := time.monotonic() - began) < seconds - every:
        await asyncio.sleep(every)
        if not is_restarted and passed >= seconds / 2 - every:
            is_restarted = True
            print("PostgreSQL: pg_ctl restart -m immediate")
            await postgres.restart()
        server = servers[number % len(servers)]
        number += 1
        print(f"kill -9 of server {server.port}")
        await server.kill()
        with suppress(TimeoutError):
            await server.start()


async def counts(database: Database) -> tuple[int, int, int]:
    """Return the numbers of firings, of their actions, and of those that are not finished."""
    async with database.read() as connection:
        firings = await connection.scalar(sa.select(sa.func.count()).select_from(AutomationFiring))
        actions = await connection.scalar(sa.select(sa.func.count()).select_from(AutomationActionRun))
        open_ = sa.select(sa.func.count()).where(AutomationActionRun.status == ActionStatus.PENDING)
        return firings or 0, actions or 0, await connection.scalar(open_) or 0


async def settled(database: Database, seconds: float) -> None:
    """Wait until all events are evaluated and all actions are finished: triggers of silence go on firing."""
    async with asyncio.timeout(seconds):
        while True:
            async with database.read() as connection:
                newest = sa.select(sa.func.max(StoredEvent.received)).where(StoredEvent.name.like("order.%"))
                behind = sa.select(newest.scalar_subquery() > sa.text("(SELECT clock FROM log_reader)"))
                is_behind = await connection.scalar(behind)
            if not is_behind and (await counts(database))[2] == 0:
                return
            await asyncio.sleep(1)


async def compare(database: Database, acknowledged: list[str]) -> list[str]:
    """Return what is wrong."""
    wrong = await verify_automations(database, EPOCH)
    async with database.read() as connection:

        async def read(*columns: Any) -> list[Any]:
            return list(await connection.execute(sa.select(*columns)))

        events = {str(key): name for key, name in await read(StoredEvent.id, StoredEvent.name)}
        payloads = [
            payload["invocation"]
            for name, payload in await read(StoredEvent.name, StoredEvent.payload)
            if name == "runstate.automation.action.executed"
        ]
        firings = await read(AutomationFiring.id, AutomationFiring.automation_id, AutomationFiring.event_id)
        actions = await read(AutomationActionRun.id, AutomationActionRun.status, AutomationActionRun.action)
        runs = (await read(sa.func.count(FlowRun.id)))[0][0]
        names = {key: int(name) for key, name in await read(Automation.id, Automation.name)}
    lost = set(acknowledged) - events.keys()
    wrong += [f"{len(lost)} acknowledged events are not in the log"] if lost else []
    single = Counter((names[of], str(event)) for _, of, event in firings if names[of] < SINGLE)
    expected = Counter((int(name.split(".")[1]), key) for key, name in events.items() if name.startswith("order."))
    missing, twice = expected - single, single - expected
    wrong += [f"{len(missing)} events did not fire"] if missing else []
    wrong += [f"{len(twice)} firings too many"] if twice else []
    done = Counter(payloads)
    executed = {str(key) for key, status, _ in actions if status is ActionStatus.EXECUTED}
    wrong += [f"{len(actions) - len(executed)} actions are not executed"] if len(executed) != len(actions) else []
    repeated = [key for key, number in done.items() if number != 1]
    wrong += [f"{len(repeated)} actions were executed twice"] if repeated else []
    wrong += ["the events of actions differ from the actions"] if done.keys() != executed else []
    wanted = sum(action.action == "run_deployment" for _, _, action in actions)
    wrong += [f"{runs} runs for {wanted} actions"] if runs != wanted else []
    print(f"{len(expected):,} events, {len(firings):,} firings, {len(actions):,} actions, {runs:,} runs of deployments")
    return wrong


async def torture(seconds: float, rate: float, every: float) -> None:
    """Append events while servers are killed, and compare."""
    async with environment("postgresql") as (url, servers, postgres):
        assert postgres  # noqa: S101 the kind
        await create(servers[0])
        emitter = Emitter(servers, time.monotonic() + seconds, rate)
        clients = [emitter.run(place) for place in range(CLIENTS)]
        began = time.monotonic()
        await asyncio.gather(kill(servers, postgres, seconds, every), *clients)
        sent = len(emitter.acknowledged)
        print(f"{sent:,} events acknowledged in {time.monotonic() - began:.0f} s: {sent / seconds * 60:,.0f} a minute")
        database = Database(url)
        await wait_until_available(database)
        await settled(database, 300)
        for server in servers:
            await server.kill()
        wrong = await compare(database, emitter.acknowledged)
        await database.close()
    print("\n".join(wrong) if wrong else "0 missing, 0 twice; each action exactly once")
    raise SystemExit(bool(wrong))


def main(seconds: float = 100, rate: float = 167, every: float = 10) -> None:
    """Torture automations, and print what is wrong."""
    uvloop.run(torture(seconds, rate, every))


if __name__ == "__main__":
    typer.run(main)

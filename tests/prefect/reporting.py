"""Events as the client sends them, and the socket on which it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import websockets
from uuid_utils.compat import uuid7
from websockets.asyncio.client import ClientConnection

PROTOCOL: Any = ["prefect"]
START = datetime.now(UTC) - timedelta(minutes=1)


class ReportedTask:
    """A task run that a client runs and reports."""

    def __init__(self, flow_run_id: str | None, **own: Any) -> None:
        self.id = str(uuid7())
        self.flow_run_id = flow_run_id
        self.own = {"name": "add-1", "task_key": "add-7f", "dynamic_key": self.id, "tags": [], "labels": {}, **own}

    def event(self, state: str, second: float = 0.0, **more: Any) -> dict[str, Any]:
        """Return the event of a state that was entered at some second."""
        at = (START + timedelta(seconds=second)).isoformat()
        resource = {"prefect.resource.id": f"prefect.task-run.{self.id}", "prefect.orchestration": "client"}
        return {
            "id": str(uuid7()),
            "event": f"prefect.task-run.{state}",
            "occurred": at,
            "resource": resource,
            "related": self._related(),
            "payload": {
                "validated_state": {"type": state.upper(), "name": state, "state_details": {}, "data": None},
                "task_run": {**self.own, "run_count": int(state != "Pending"), "total_run_time": 0.5},
            },
            **more,
        }

    def _related(self) -> list[dict[str, str]]:
        named = {"prefect.resource.id": f"prefect.flow-run.{self.flow_run_id}", "prefect.resource.role": "flow-run"}
        return [named] if self.flow_run_id else []


@asynccontextmanager
async def emitting(address: str) -> AsyncIterator[ClientConnection]:
    """Yield a socket for events, after the handshake."""
    url = f"ws://{address.replace('/graphql', '/api/events/in')}"
    async with websockets.connect(url, subprotocols=PROTOCOL) as socket:
        await (await socket.ping())
        await socket.send('{"type":"auth","token":null}')
        assert orjson.loads(await socket.recv()) == {"type": "auth_success"}
        yield socket


async def emit(socket: ClientConnection, *events: Any) -> None:
    """Send events, and wait until the server has acknowledged them."""
    for each in events:
        await socket.send(orjson.dumps(each).decode())
    async with asyncio.timeout(30):
        await (await socket.ping())


async def new_flow_run(client: httpx.AsyncClient, **state: Any) -> str:
    """Create a flow run and return its id."""
    flow = (await client.post("/flows/", json={"name": f"flow-{uuid7()}"})).json()
    made = await client.post("/flow_runs/", json={"flow_id": flow["id"], **({"state": state} if state else {})})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])

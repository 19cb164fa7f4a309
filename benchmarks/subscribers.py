"""Subscribers to transitions, until the process is stopped: part of benchmarks/bench.py.

`mixed`: 98 subscribers to one run each and two to all runs. `nested`: 200 subscribers to all runs, with fields of the
run. `different`: the same, each with a document of its own.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from benchmarks.http_client import Client

EVENTS = """subscription($where: TransitionWhere) {
  transitions(where: $where) { cursor transitions { runId version stateName } } }"""
NESTED = "subscription {{ transitions {{ cursor transitions {{ version run {{ id {}: name stateName tags }} }} }} }}"
PROTOCOL: Any = ["graphql-transport-ws"]
RUNS = "{ taskRuns(first: 100, orderBy: [{created: DESC}]) { nodes { id } } }"
PER_SOCKET = 100


async def main(url: str, kind: str) -> None:
    """Subscribe and discard all events."""
    if kind == "mixed":
        client = await Client.connect(url)
        runs = [each["id"] for each in (await client.execute(RUNS))["taskRuns"]["nodes"]]
        conditions = [*({"runIds": [run]} for run in runs[:98]), None, None]
        payloads = [{"query": EVENTS, "variables": {"where": where}} for where in conditions]
    else:
        payloads = [{"query": NESTED.format(f"n{each if kind == 'different' else ''}")} for each in range(200)]
    parts = [payloads[start : start + PER_SOCKET] for start in range(0, len(payloads), PER_SOCKET)]
    await asyncio.gather(*(listen(url, part) for part in parts))


async def listen(url: str, payloads: list[dict[str, Any]]) -> None:
    """Subscribe on a socket."""
    async with connect(url.replace("http", "ws"), subprotocols=PROTOCOL, max_size=None) as socket:
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        for number, payload in enumerate(payloads):
            await socket.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
        async for message in socket:
            if '"type":"error"' in str(message).replace(" ", ""):
                raise RuntimeError(message)


uvloop.run(main(sys.argv[1], sys.argv[2]))

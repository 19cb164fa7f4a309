"""98 subscribers to one run each and two to all runs, until the process is stopped: part of benchmarks/bench.py."""

import json
import sys
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from benchmarks.http_client import Client

EVENTS = """subscription($where: TransitionWhere) {
  transitions(where: $where) { cursor transitions { runId version stateName } } }"""
PROTOCOL: Any = ["graphql-transport-ws"]
RUNS = "{ taskRuns(first: 100, orderBy: [{created: DESC}]) { nodes { id } } }"


async def main(url: str) -> None:
    """Subscribe and discard all events."""
    client = await Client.connect(url)
    runs = [each["id"] for each in (await client.execute(RUNS))["taskRuns"]["nodes"]]
    async with connect(url.replace("http", "ws"), subprotocols=PROTOCOL, max_size=None) as socket:
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        conditions = [*({"runIds": [run]} for run in runs[:98]), None, None]
        for number, where in enumerate(conditions):
            payload = {"query": EVENTS, "variables": {"where": where}}
            await socket.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
        async for message in socket:
            if '"type":"error"' in str(message).replace(" ", ""):
                raise RuntimeError(message)


uvloop.run(main(sys.argv[1]))

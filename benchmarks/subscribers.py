"""A hundred subscribers to one run each and two to everything, until it is stopped: part of benchmarks/bench.py."""

import json
import sys

import uvloop
from light import Client
from websockets.asyncio.client import connect

EVENTS = """subscription($where: TransitionWhere) {
  transitions(where: $where) { cursor transitions { runId version stateName } } }"""
RUNS = "{ taskRuns(first: 100, orderBy: [{created: DESC}]) { nodes { id } } }"


async def main(url: str) -> None:
    """Listen."""
    client = await Client.connect(url)
    runs = [each["id"] for each in (await client.ask(RUNS))["taskRuns"]["nodes"]]
    async with connect(url.replace("http", "ws"), subprotocols=["graphql-transport-ws"], max_size=None) as socket:
        await socket.send('{"type": "connection_init"}')
        await socket.recv()
        wanted = [{"runId": {"eq": run}} for run in runs[:98]] + [None] * 2
        for number, where in enumerate(wanted):
            payload = {"query": EVENTS, "variables": {"where": where}}
            await socket.send(json.dumps({"id": str(number), "type": "subscribe", "payload": payload}))
        async for _ in socket:
            pass


uvloop.run(main(sys.argv[1]))

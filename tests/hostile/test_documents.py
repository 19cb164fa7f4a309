"""Documents, variables and bodies that are large, deep or odd: each is answered or refused, and others are answered."""

import asyncio
import gzip
import json
from typing import Any

import httpx

from tests.client import Ask
from tests.graphql.mutations import make_flow_run
from tests.hostile.watching import base_of, watched
from tests.serving import Serve

MB = 2**20
MOST_GROWTH = 50 * MB
SETTLED = 25 * MB
SLOWEST_SECONDS = 2
JSON = {"Content-Type": "application/json"}
TIMES = 5
"""Concurrent requests of each kind."""
IN_LIST = "query($where: FlowRunWhere) { flowRuns(where: $where) { totalCount } }"
TYPES = "__schema { types { name description fields { name description type { name ofType { name } } } } }"


def nested(depth: int, inner: Any, key: str = "not") -> Any:
    """Return an object inside so many objects."""
    for _ in range(depth):
        inner = {key: inner}
    return inner


def asked(query: str, **variables: Any) -> bytes:
    """Return the body of a request."""
    return json.dumps({"query": query, "variables": variables}).encode()


def spread(levels: int) -> str:
    """Return fragments, each of which spreads the next one twice."""
    each = (f"fragment f{level} on Query {{ ...f{level + 1} ...f{level + 1} }}" for level in range(levels))
    return " ".join(("{ ...f0 }", *each, f"fragment f{levels} on Query {{ __typename }}"))


BODIES = {
    "schema under many names": asked(f"{{ {' '.join(f'a{each}: {TYPES}' for each in range(20))} }}"),
    "many names": asked(f"{{ {' '.join(f'a{each}: __typename' for each in range(5_000))} }}"),
    "one field many times": asked(f"{{ {'__typename ' * 4_000} }}"),
    "one page many times": asked(f"{{ {'flowRuns { nodes { id } } ' * 700} }}"),
    "conflicting pages": asked(f"{{ flowRuns {{ {' '.join(f'nodes {{ x: id y{n}: name }}' for n in range(90))} }} }}"),
    "doubling fragments": asked(spread(60)),
    "many fragments": asked(
        " ".join(("{ ...f0 }", *(f"fragment f{each} on Query {{ __typename }}" for each in range(900))))
    ),
    "a circle of fragments": asked("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }"),
    "deep fields": asked("{ flowRuns { nodes " * 400 + "{ id }" + "} }" * 400),
    "deep lists in the document": asked(f"{{ flowRuns(where: {'[' * 2_000}{']' * 2_000}) {{ totalCount }} }}"),
    "deep conditions": asked(IN_LIST, where=nested(200, {"name": {"eq": "x"}})),
    "deeper conditions": asked(IN_LIST, where=0).replace(b"0", b'{"not": ' * 5_000 + b"{}" + b"}" * 5_000),
    "many conditions": asked(IN_LIST, where={"or": [{"name": {"contains": "x" * 500}}] * 1_000}),
    "doubling conditions": asked(
        IN_LIST, where={"or": [{"or": [{"or": [{"name": {"contains": "x"}}] * 10}] * 10}] * 10}
    ),
    "long lists": asked(IN_LIST, where={"name": {"in": ["x" * 200] * 4_000}}),
    "lists": asked(IN_LIST, where={"name": {"in": [f"{each}" for each in range(1_000)]}}),
    "many values in a list of lists": asked("query($i: [ID!]!) { nodes(ids: $i) { id } }", i=["x"] * 60_000),
    "long text": asked(IN_LIST, where={"name": {"contains": "ä" * 500_000}}),
    "wild cards": asked(IN_LIST, where={"name": {"contains": "%_" * 120}}),
    "unknown variables": asked("{ __typename }", **{f"v{each}": each for each in range(50_000)}),
    "many variables": asked(
        f"query({' '.join(f'$v{each}: Int' for each in range(1_600))}) {{ __typename }}",
    ),
    "a long name": asked(f"{{ {'a' * 60_000} }}"),
    "a long text in the document": asked(f'{{ flow(name: "{"x" * 60_000}") {{ id }} }}'),
    "a long number": asked(f"{{ flowRuns(first: {'9' * 60_000}) {{ totalCount }} }}"),
    "a long number of JSON": b'{"query": "query($n: Int) { flowRuns(first: $n) { totalCount } }", "variables": {"n": '
    + b"9" * 200_000
    + b"}}",
    "a long number in JSON": asked(f"{{ flowRuns(where: {{parameters: {{eq: {'9' * 60_000}}}}}) {{ totalCount }} }}"),
    "a long fraction": asked(f"{{ flowRuns(first: 1.{'9' * 60_000}) {{ totalCount }} }}"),
    "comments": asked("#" * 60_000 + "\n{ __typename }"),
    "commas": asked("{" + "," * 60_000 + "__typename }"),
    "odd characters": asked('{ flow(name: "\u202e\ufeff\U000e0001\ud83d\ude00\u0000") { id } }'),
    "combining characters": asked(IN_LIST, where={"name": {"contains": "Z" + "\u0323\u0307" * 100_000}}),
    "half of a character": b'{"query": "{ flow(name: \\"\\ud800\\") { id } }"}',
    "a batch": b"[" + b",".join([asked("{ __typename }")] * 5_000) + b"]",
    "deep JSON": b'{"query": "{ __typename }", "variables": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "many keys": b'{"query": "{ __typename }", "extensions": {'
    + b",".join(b'"%d": 1' % n for n in range(60_000))
    + b"}}",
}


async def test_odd_requests_keep_nobody_waiting(serve: Serve) -> None:
    server, wrong = await serve(RUNSTATE_LOG_FORMAT="json"), list[str]()
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client:
        await make_flow_run(Ask(client))
        async with watched(server) as watch:
            for name, body in BODIES.items():
                sent = (client.post("/graphql", content=body, headers=JSON) for _ in range(TIMES))
                wrong += [f"{name}: {each.text[:500]}" for each in await asyncio.gather(*sent) if not is_sane(each)]
                if watch.slowest > SLOWEST_SECONDS:
                    wrong.append(f"{name}: {watch.slowest:.1f} s")
                    watch.seconds = [0]

    assert not wrong
    assert {*watch.statuses} == {200}
    assert watch.growth_bytes < MOST_GROWTH, f"grew by {watch.growth_bytes / MB:.0f} MB"
    assert await watch.settled(SETTLED) < SETTLED
    await server.stop()
    assert b"Traceback" not in await server.output


def is_sane(answer: httpx.Response) -> bool:
    """Whether an answer is small and says that no bug was met."""
    return answer.status_code in {200, 400, 413, 503} and len(answer.content) < 2 * MB and "INTERNAL" not in answer.text


async def test_a_compressed_body_is_not_expanded(serve: Serve) -> None:
    server = await serve()
    bomb = gzip.compress(b" " * (500 * MB))
    async with httpx.AsyncClient(base_url=base_of(server), timeout=60) as client, watched(server) as watch:
        sent = (
            client.post("/graphql", content=bomb, headers=JSON | {"Content-Encoding": "gzip"}) for _ in range(TIMES)
        )
        statuses = {each.status_code for each in await asyncio.gather(*sent)}

    assert statuses == {415}
    assert watch.growth_bytes < MOST_GROWTH
    assert watch.slowest < SLOWEST_SECONDS

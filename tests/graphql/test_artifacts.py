"""Artifacts over HTTP and WebSockets, on both databases: collections, contents, changes, deletion with runs."""

import asyncio
import random
from typing import Any

import pytest

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, make_flow_run, make_task_run
from tests.subscribing import Listening, connected

COLLECTION = """query($key: String!) { artifactCollection(by: {key: $key}) {
  id latestId data updated latest { id data isLatest } versions { totalCount nodes { id created } } } }"""
CONTENT = """content { __typename ... on MarkdownContent { markdown } ... on LinkContent { text url }
  ... on ImageContent { url } ... on ProgressContent { percent } ... on TableContent { columns rows rowCount } }"""


async def create(ask: Ask, selection: str = "id", **given: Any) -> Any:
    """Create an artifact; return it."""
    fields = f"{PROBLEM} ... on CreateArtifactPayload {{ artifact {{ {selection} }} }}"
    return (await do(ask, "createArtifact", "CreateArtifactInput", fields, **given))["artifact"]


async def update(ask: Ask, id: str, **given: Any) -> Any:
    """Update an artifact; return it, or the problem."""
    fields = f"{PROBLEM} ... on UpdateArtifactPayload {{ artifact {{ id data }} }}"
    return await do(ask, "updateArtifact", "UpdateArtifactInput", fields, id=id, **given)


async def delete(ask: Ask, id: str) -> Any:
    """Delete an artifact; return the answer."""
    document = f"mutation($id: ID!) {{ it: deleteArtifact(id: $id) {{ {PROBLEM} }} }}"
    return (await ask(document, id=id))["it"]


async def collection(ask: Ask, key: str = "k") -> Any:
    """Return a collection."""
    return (await ask(COLLECTION, key=key))["artifactCollection"]


async def test_a_collection_has_its_versions_and_the_latest(ask: Ask) -> None:
    first, second = [await create(ask, key="k", type="progress", data=number) for number in (1, 2)]
    found = await collection(ask)

    assert found["latest"] == {"id": second["id"], "data": 2, "isLatest": True}
    assert found["versions"]["totalCount"] == 2
    assert [each["id"] for each in found["versions"]["nodes"]] == [second["id"], first["id"]]
    document = "query($id: ID!) { artifact(id: $id) { isLatest collection { key } } }"
    assert (await ask(document, id=first["id"]))["artifact"] == {"isLatest": False, "collection": {"key": "k"}}
    assert await create(ask, "isLatest collection { id }") == {"isLatest": True, "collection": None}


async def test_a_table_has_a_bounded_number_of_cells(ask: Ask) -> None:
    wide = [[0] * 5_000] + [[]] * 1_999
    found = (await create(ask, CONTENT, type="table", data=wide))["content"]

    assert (len(found["columns"]), len(found["rows"]), found["rowCount"]) == (200, 1_000, 2_000)


async def test_concurrent_changes_leave_the_newest_artifact_as_the_latest(ask: Ask) -> None:
    made = [(await create(ask, key="k", data=0))["id"] for _ in range(4)]
    draw = random.Random(1)

    async def one(number: int) -> None:
        for _ in range(6):
            match draw.choice(("create", "update", "delete")):
                case "create":
                    made.append((await create(ask, key="k", data=number))["id"])
                case "update":
                    await update(ask, draw.choice(made), data=number)
                case "delete":
                    await delete(ask, draw.choice(made))

    await asyncio.gather(*map(one, range(6)))
    found = await collection(ask)
    nodes = (await ask('{ artifacts(where: {key: {eq: "k"}}) { nodes { id created data } } }'))["artifacts"]["nodes"]
    if found is None:
        assert nodes == []
    else:
        newest = max(nodes, key=lambda each: (each["created"], each["id"]))
        assert (found["latestId"], found["data"]) == (newest["id"], newest["data"])


@pytest.mark.parametrize(
    ("type", "data", "content"),
    [
        ("markdown", "# Title", {"__typename": "MarkdownContent", "markdown": "# Title"}),
        ("markdown", "[t](https://x)", {"__typename": "LinkContent", "text": "t", "url": "https://x"}),
        ("link", "https://x", {"__typename": "LinkContent", "text": None, "url": "https://x"}),
        ("image", "https://x/y.png", {"__typename": "ImageContent", "url": "https://x/y.png"}),
        ("progress", 12.5, {"__typename": "ProgressContent", "percent": 12.5}),
        ("progress", 101, None),
        ("progress", True, None),
        (
            "table",
            '[{"a": 1}, {"b": 2}]',
            {"__typename": "TableContent", "columns": ["a", "b"], "rows": [[1, None], [None, 2]], "rowCount": 2},
        ),
        (
            "table",
            {"a": [1, 2], "b": [3, 4]},
            {"__typename": "TableContent", "columns": ["a", "b"], "rows": [[1, 3], [2, 4]], "rowCount": 2},
        ),
        ("table", {"a": [1], "b": []}, None),
        (
            "table",
            [[1], [2, 3]],
            {"__typename": "TableContent", "columns": ["0", "1"], "rows": [[1, None], [2, 3]], "rowCount": 2},
        ),
        ("table", "not JSON", None),
        ("own", "x", None),
        (None, "x", None),
    ],
)
async def test_data_is_read_as_the_type_says(ask: Ask, type: str | None, data: Any, content: Any) -> None:
    assert (await create(ask, CONTENT, type=type, data=data))["content"] == content


async def test_artifacts_are_deleted_with_their_run(ask: Ask) -> None:
    run = await make_flow_run(ask)
    task = await make_task_run(ask)
    older = await create(ask, key="k", data="older")
    await create(ask, key="k", data="of the run", flowRunId=run)
    await create(ask, key="only", flowRunId=run)
    await create(ask, key="k", data="of the task run", taskRunId=task)
    counts = "query($id: ID!) { flowRun(id: $id) { artifacts { totalCount } } }"
    assert (await ask(counts, id=run))["flowRun"]["artifacts"]["totalCount"] == 2
    for what, key in (("FlowRun", run), ("TaskRun", task)):
        await ask(f"mutation($id: ID!) {{ delete{what}(id: $id) {{ __typename }} }}", id=key)

    assert (await collection(ask))["latestId"] == older["id"]
    assert await collection(ask, "only") is None


async def test_the_progress_of_a_task_is_followed_live(server: Listening, live: Ask) -> None:
    made = await create(live, type="progress", data=0)
    async with connected(server) as socket:
        document = (
            "subscription($id: ID!) { artifact(id: $id) { data content { ... on ProgressContent { percent } } } }"
        )
        subscription = await socket.subscribe(document, id=made["id"])
        assert (await subscription.next())["artifact"] == {"data": 0, "content": {"percent": 0}}
        for percent in (50, 100):
            await update(live, made["id"], data=percent)
            assert (await subscription.next())["artifact"]["data"] == percent
        await delete(live, made["id"])
        assert (await subscription.next())["artifact"] is None
        await subscription.completed()
        unknown = await socket.subscribe(document, key="2", id=made["id"])
        assert (await unknown.next())["artifact"] is None
        await unknown.completed()

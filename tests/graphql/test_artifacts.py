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


PROPOSE = """mutation($run: ID!, $data: JSON) { it: proposeState(input: {
  run: {flowRunId: $run}, state: {type: COMPLETED, data: $data}, force: true}) {
    __typename ... on OrchestrationResult { state { data } } ... on InvalidInput { path } } }"""
STATE = """query($id: ID!) { flowRun(id: $id) { state {
  data artifact { id key type data description flowRunId } resultReference {
    storageKey storageBlockId storageBlock { id } serializer { type settings } expiration clientVersion } } } }"""


async def state_of(ask: Ask, run: str, data: Any) -> Any:
    """Let a flow run complete with data; return its state."""
    assert (await ask(PROPOSE, run=run, data=data))["it"]["__typename"] == "OrchestrationResult"
    return (await ask(STATE, id=run))["flowRun"]["state"]


async def test_the_data_of_a_state_make_an_artifact_and_lose_it(ask: Ask) -> None:
    run = await make_flow_run(ask)
    described = {"artifact_key": "k", "artifact_type": "table", "artifact_description": "d"}
    for number in (1, 2):
        state = await state_of(ask, run, {**described, "x": number})
    artifact = state["artifact"]

    assert state["data"] == artifact["data"] == {"x": 2}
    assert [artifact[name] for name in ("key", "type", "description", "flowRunId")] == ["k", "table", "d", run]
    found = await collection(ask)
    assert (found["latestId"], found["versions"]["totalCount"]) == (artifact["id"], 2)
    await delete(ask, artifact["id"])
    state = (await ask(STATE, id=run))["flowRun"]["state"]
    assert (state["data"], state["artifact"]) == (None, None)
    assert (await collection(ask))["data"] == {"x": 1}


@pytest.mark.parametrize(
    ("data", "member"),
    [({"artifact_key": "A b"}, "artifact_key"), ({"artifact_key": "k", "artifact_type": 3}, "artifact_type")],
)
async def test_an_invalid_artifact_of_a_state_is_refused(ask: Ask, data: Any, member: str) -> None:
    run = await make_flow_run(ask)

    assert (await ask(PROPOSE, run=run, data=data))["it"] == {
        "__typename": "InvalidInput",
        "path": ["state", "data", member],
    }


async def test_states_that_make_versions_at_the_same_time_leave_one_collection(ask: Ask) -> None:
    runs = [await make_flow_run(ask) for _ in range(8)]
    await asyncio.gather(*(ask(PROPOSE, run=run, data={"artifact_key": "k"}) for run in runs))
    found = await collection(ask)

    assert found["versions"]["totalCount"] == len(runs)
    assert found["latestId"] in {each["id"] for each in found["versions"]["nodes"]}


async def test_a_state_refers_to_its_stored_result(ask: Ask) -> None:
    run = await make_flow_run(ask)
    reference = {"storage_key": "k", "expiration": "2026-01-05T00:00:00", "prefect_version": "3"}
    serializer = {"type": "json", "jsonlib": "json"}
    state = await state_of(ask, run, reference | {"serializer": serializer, "storage_block_id": run})

    assert state["resultReference"] == {
        "storageKey": "k",
        "storageBlockId": run,
        "storageBlock": None,
        "serializer": {"type": "json", "settings": {"jsonlib": "json"}},
        "expiration": "2026-01-05T00:00:00.000000Z",
        "clientVersion": "3",
    }
    for data in (None, 1, {"storage_key": 1}, {"x": 1}):
        assert (await state_of(ask, await make_flow_run(ask), data))["resultReference"] is None

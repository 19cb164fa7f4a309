"""Operations on artifacts, their collections, and data of states."""

from typing import Any

from tests.oracle.stores import Answer, Step, Stores, operation

COPIED = "key type description data metadata flowRunId taskRunId"
GIVEN = ("key", "type", "description", "data", "metadata")


def _recorded(play: Stores, found: Answer) -> Answer:
    names = {"run": play.name(found["flowRunId"]), "task": play.name(found["taskRunId"])}
    return {key: found[key] for key in GIVEN} | names


@operation
async def artifact(play: Stores, step: Step) -> Answer:
    """Create an artifact."""
    given = {key: step[key] for key in GIVEN if key in step}
    named = {"run": "flowRunId", "task": "taskRunId"}
    given |= {member: play.id(step[key]) for key, member in named.items() if key in step}
    return {"ok": True, **_recorded(play, await play.make(step, "Artifact", COPIED, given))}


@operation
async def read_artifact(play: Stores, step: Step) -> Answer:
    """Read an artifact."""
    document = f"query($id: ID!) {{ it: artifact(id: $id) {{ {COPIED} }} }}"
    found = await play.ask(document, id=play.id(step["artifact"]))
    return {"artifact": found and _recorded(play, found)}


@operation
async def update_artifact(play: Stores, step: Step) -> Answer:
    """Update an artifact."""
    given: Answer = {key: step[key] for key in ("description", "data", "metadata") if key in step}
    await play.mutate("updateArtifact", "artifact { id }", {"id": play.id(step["artifact"]), **given})
    return {"ok": True}


@operation
async def delete_artifact(play: Stores, step: Step) -> Answer:
    """Delete an artifact."""
    await play.delete("Artifact", play.id(step["artifact"]))
    return {"ok": True}


@operation
async def collection(play: Stores, step: Step) -> Answer:
    """Read a collection."""
    document = f"query($key: String!) {{ it: artifactCollection(by: {{ key: $key }}) {{ {COPIED} latestId }} }}"
    found = await play.ask(document, key=step["key"])
    return {"collection": found and {**_recorded(play, found), "latest": play.name(found["latestId"])}}


def _where(play: Stores, wanted: Step, id: str) -> list[Any]:
    ids = {"ids": id, "run": "flowRunId", "task": "taskRunId"}
    where: list[Any] = [
        {member: {"in": list(map(play.id, wanted[key]))}} for key, member in ids.items() if key in wanted
    ]
    for key, member, how in (("keys", "key", "in"), ("key_like", "key", "contains"), ("types", "type", "in")):
        if key in wanted:
            where.append({member: {how: wanted[key]}})
    if "key_exists" in wanted:
        where.append({"key": {"isNull": not wanted["key_exists"]}})
    if wanted.get("not_types"):
        where.append({"type": {"notIn": wanted["not_types"], "isNull": False}})
    of = {"flow": "flowId", "deployment": "deploymentId"}
    run = [{member: {"in": [play.ids[name] for name in wanted[key]]}} for key, member in of.items() if key in wanted]
    if "run_name" in wanted:
        run.append({"name": {"in": [wanted["run_name"]]}})
    if run:
        where.append({"flowRun": {"and": run}})
    if "task_name" in wanted:
        where.append({"taskRun": {"name": {"in": [wanted["task_name"]]}}})
    return where


@operation
async def artifacts(play: Stores, step: Step) -> Answer:
    """List artifacts."""
    where, order = _where(play, step["where"], "id"), step.get("order")
    pages, count = await play.pages("artifacts", "Artifact", "id", where, order=order)
    names = [play.name(each["id"]) for page in pages for each in page]
    return {"artifacts": names if order else sorted(map(str, names)), "count": count}


@operation
async def collections(play: Stores, step: Step) -> Answer:
    """List collections."""
    where, order = _where(play, step["where"], "latestId"), step.get("order")
    pages, count = await play.pages("artifactCollections", "ArtifactCollection", "key latestId", where, order=order)
    found = [[each["key"], play.name(each["latestId"])] for page in pages for each in page]
    return {"collections": found if order else sorted(found), "count": count}


@operation
async def propose(play: Stores, step: Step) -> Answer:
    """Propose a state with data."""
    reference = {"flowRunId" if step["kind"] == "flow_run" else "taskRunId": play.id(step["run"])}
    state = {"type": step["type"]} | ({"data": step["data"]} if "data" in step else {})
    document = """mutation($input: ProposeStateInput!) {
        it: proposeState(input: $input) { ... on OrchestrationResult { status } ... on Problem { code message } } }"""
    return {"status": (await play.ask(document, input={"run": reference, "state": state, "force": True}))["status"]}


@operation
async def state_data(play: Stores, step: Step) -> Answer:
    """Read the data of a run's state."""
    field = "flowRun" if step["kind"] == "flow_run" else "taskRun"
    found = await play.ask(
        f"query($id: ID!) {{ it: {field}(id: $id) {{ state {{ data }} }} }}", id=play.id(step["run"])
    )
    return {"data": found["state"]["data"]}

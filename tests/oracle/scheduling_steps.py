"""Steps of recorded scenarios of deployments, schedules, pools, queues, workers and claims."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from tests.oracle.scheduling import Answer, Play, ProblemError, Step, instant, operation, picked

POOL = """id name type description baseJobTemplate paused concurrencyLimit slotsInUse status
  storageConfiguration { bundleUploadStep bundleExecutionStep }"""
QUEUE = "id name description paused concurrencyLimit priority status lastPolled slotsInUse"
RULE = """schedule { __typename ... on CronSchedule { cron dayOr timeZone }
  ... on IntervalSchedule { intervalSeconds anchor timeZone } ... on RRuleSchedule { rrule timeZone } }"""
PLAN = f"id active maxScheduledRuns parameters slug {RULE}"
GIVEN = (
    "description",
    "paused",
    "tags",
    "labels",
    "parameters",
    "parameterSchema",
    "enforceParameterSchema",
    "pullSteps",
    "entrypoint",
    "path",
    "jobVariables",
    "version",
    "concurrencyLimit",
    "workQueueName",
)
"""Fields of a deployment that are copied as they are."""
DEPLOYMENT = f"""id name {" ".join(GIVEN)} status lastPolled workPool {{ name }}
  concurrencyOptions {{ collisionStrategy }} schedules(first: 200) {{ nodes {{ {PLAN} }} }}"""
RUN = """id stateType stateName expectedStartTime nextScheduledStartTime autoScheduled tags parameters jobVariables
  deploymentVersion workQueueName workPool { name } createdBy { type displayValue }"""
SEEN = ("stateType", "stateName", "autoScheduled", "parameters", "jobVariables", "deploymentVersion")
POLICY = "healthCheckPolicy { maximumLateRuns maximumSecondsSinceLastPolled }"
RUNS = f"""query($where: FlowRunWhere, $after: String) {{ it: flowRuns(where: $where, first: 200, after: $after) {{
  nodes {{ {RUN} }} pageInfo {{ hasNextPage endCursor }} }} }}"""
DUE = """query($input: ClaimableFlowRunsInput!) { it: claimableFlowRuns(input: $input) { __typename
  ... on ClaimableFlowRunsPayload { flowRuns { id } } ... on Problem { code message } } }"""
START = datetime.min.replace(tzinfo=UTC)


async def read(play: Play, field: str, selection: str, id: str) -> Any:
    """Return an object by id."""
    return await play.ask(f"query($id: ID!) {{ it: {field}(id: $id) {{ {selection} }} }}", id=id)


async def pool_by_id(play: Play, step: Step, selection: str) -> Any:
    """Return the pool of a step."""
    document = f"query($id: ID!) {{ it: workPool(by: {{ id: $id }}) {{ {selection} }} }}"
    return await play.ask(document, id=play.ids[step["pool"]])


@operation
async def flow(play: Play, step: Step) -> None:
    """Create a flow."""
    given = {"name": f"flow-{play.nonce}-{step['as']}", **play.given(step, "labels")}
    play.ids[step["as"]] = (await play.mutate("createFlow", "x: flow { id }", given))["x"]["id"]


def pool_in(play: Play, step: Step) -> Step:
    """Return the input of a pool."""
    given = play.given(step, "name", "type", "description", "baseJobTemplate", "paused", "concurrencyLimit")
    return given | ({"storageConfiguration": step["storage"]} if "storage" in step else {})


def pool_view(play: Play, row: Any) -> Answer:
    """Return a pool as it was recorded."""
    shown = picked(row, "name", "type", "description", "baseJobTemplate", "paused", "concurrencyLimit", "status")
    return {"pool": play.plain({**shown, "storage": row["storageConfiguration"], **play.slots(row)})}


@operation
async def pool(play: Play, step: Step) -> Answer:
    """Create a pool."""
    row = (await play.mutate("createWorkPool", f"x: workPool {{ {POOL} }}", pool_in(play, step)))["x"]
    play.ids[step["as"]], play.names[step["as"]] = row["id"], row["name"]
    return pool_view(play, row)


@operation
async def update_pool(play: Play, step: Step) -> Answer:
    """Update a pool."""
    given = {"id": play.ids[step["pool"]], **pool_in(play, step)}
    return pool_view(play, (await play.mutate("updateWorkPool", f"x: workPool {{ {POOL} }}", given))["x"])


@operation
async def read_pool(play: Play, step: Step) -> Answer:
    """Read a pool."""
    return pool_view(play, await pool_by_id(play, step, POOL))


@operation
async def delete_pool(play: Play, step: Step) -> Answer:
    """Delete a pool."""
    await play.by_id("deleteWorkPool", play.ids[step["pool"]])
    return {"deleted": True}


def queue_in(play: Play, step: Step) -> Step:
    """Return the input of a queue."""
    return play.given(step, "name", "description", "paused", "concurrencyLimit", "priority", "filter")


def queue_view(play: Play, row: Any) -> Answer:
    """Return a queue as it was recorded."""
    shown = picked(row, "name", "description", "paused", "concurrencyLimit", "priority", "status")
    polled: Answer = play.plain({**shown, "polled": row["lastPolled"] is not None, **play.slots(row)})
    return polled


@operation
async def queue(play: Play, step: Step) -> Answer:
    """Create a queue."""
    given = {"workPoolId": play.ids[step["pool"]], **queue_in(play, step)}
    row = (await play.mutate("createWorkQueue", f"x: workQueue {{ {QUEUE} }}", given))["x"]
    play.ids[step["as"]], play.names[step["as"]] = row["id"], row["name"]
    return {"queue": queue_view(play, row)}


async def queue_id(play: Play, step: Step) -> str:
    """Return the id of the queue of a step."""
    if "queue_name" not in step:
        return play.ids[step["queue"]]
    path = {"workPool": play.names[step["pool"]], "name": play.named(step["queue_name"])}
    try:
        found = await play.ask("query($by: WorkQueueRef!) { it: workQueue(by: $by) { id } }", by={"path": path})
    except ProblemError:
        return str(uuid4())
    return str(found["id"])


@operation
async def update_queue(play: Play, step: Step) -> Answer:
    """Update a queue."""
    await play.mutate(
        "updateWorkQueue", "x: workQueue { id }", {"id": await queue_id(play, step), **queue_in(play, step)}
    )
    if "name" in step:
        play.names[step["queue"]] = play.named(step["name"])
    return await read_queues(play, step)


@operation
async def delete_queue(play: Play, step: Step) -> Answer:
    """Delete a queue."""
    await play.by_id("deleteWorkQueue", await queue_id(play, step))
    return {"deleted": True}


@operation
async def read_queues(play: Play, step: Step) -> Answer:
    """Read the queues of a pool by priority."""
    selection = f"workQueues(first: 200, orderBy: [{{ priority: ASC }}]) {{ nodes {{ {QUEUE} }} }}"
    found = await pool_by_id(play, step, selection)
    return {"queues": [queue_view(play, each) for each in found["workQueues"]["nodes"]]}


@operation
async def health(play: Play, step: Step) -> Answer:
    """Read the health of a queue."""
    document = f"""query($by: WorkQueueRef!) {{ it: workQueue(by: $by) {{
      health {{ healthy lateRunsCount lastPolled {POLICY} }} }} }}"""
    path = {"workPool": play.names[step["pool"]], "name": step["queue_name"]}
    found = (await play.ask(document, by={"path": path}))["health"]
    counted = {"lateRuns": found["lateRunsCount"], "polled": found["lastPolled"] is not None}
    return {"healthy": found["healthy"], **counted, "policy": found["healthCheckPolicy"]}


@operation
async def heartbeat(play: Play, step: Step) -> Answer:
    """Send a heartbeat of a worker."""
    given = {"workPool": play.names.get(step["pool"], step["pool"]), "worker": step["worker"]}
    if "interval" in step:
        given["intervalSeconds"] = step["interval"]
    await play.mutate("workerHeartbeat", "x: worker { id }", given)
    return {"ok": True}


async def workers_of(play: Play, step: Step) -> list[Any]:
    """Return the workers of a pool."""
    selection = "workers(first: 200) { nodes { id name status heartbeatIntervalSeconds } }"
    found: list[Any] = (await pool_by_id(play, step, selection))["workers"]["nodes"]
    return found


@operation
async def read_workers(play: Play, step: Step) -> Answer:
    """Read the workers of a pool."""
    rows = await workers_of(play, step)
    return {"workers": sorted([row["name"], row["status"], row["heartbeatIntervalSeconds"]] for row in rows)}


@operation
async def delete_worker(play: Play, step: Step) -> Answer:
    """Delete a worker."""
    found = [each["id"] for each in await workers_of(play, step) if each["name"] == step["worker"]]
    await play.by_id("deleteWorker", found[0] if found else str(uuid4()))
    return {"deleted": True}


def deployment_in(play: Play, step: Step) -> Step:
    """Return the input of a deployment."""
    given = play.given(step, *GIVEN)
    if "pool" in step:
        given["workPool"] = step["pool"] and play.names.get(step["pool"], step["pool"])
    if "collisionStrategy" in step:
        given["concurrencyOptions"] = {"collisionStrategy": step["collisionStrategy"]}
    if "schedules" in step:
        given["schedules"] = [play.plan_in(each) for each in step["schedules"]]
    return given


@operation
async def deployment(play: Play, step: Step) -> Answer:
    """Create a deployment, or update it."""
    given = {"name": play.named(step["name"]), "flowId": play.id(step["flow"]), **deployment_in(play, step)}
    found = await play.mutate("createDeployment", "created x: deployment { id }", given)
    play.ids[step["as"]] = found["x"]["id"]
    return {"created": found["created"], **await read_deployment(play, {"deployment": step["as"]})}


@operation
async def update_deployment(play: Play, step: Step) -> Answer:
    """Update a deployment."""
    given = {"id": play.id(step["deployment"]), **deployment_in(play, step)}
    await play.mutate("updateDeployment", "x: deployment { id }", given)
    return await read_deployment(play, step)


@operation
async def read_deployment(play: Play, step: Step) -> Answer:
    """Read a deployment with its schedules."""
    row = await read(play, "deployment", DEPLOYMENT, play.ids[step["deployment"]])
    view = picked(row, "name", *GIVEN, "status")
    view["labels"] = {key: value for key, value in row["labels"].items() if not key.startswith(OWN)}
    view["workPool"] = row["workPool"] and row["workPool"]["name"]
    view["polled"] = row["lastPolled"] is not None
    view["collisionStrategy"] = row["concurrencyOptions"] and row["concurrencyOptions"]["collisionStrategy"]
    view["schedules"] = play.plans_out(row["schedules"]["nodes"])
    return {"deployment": play.plain(view)}


OWN = ("prefect.", "runstate.")


@operation
async def delete_deployment(play: Play, step: Step) -> Answer:
    """Delete a deployment."""
    await play.by_id("deleteDeployment", play.ids[step["deployment"]])
    return {"deleted": True}


@operation
async def pause(play: Play, step: Step) -> Answer:
    """Pause or resume a deployment."""
    verb = step["op"].title()
    made = await play.by_id(
        f"{step['op']}Deployment", play.id(step["deployment"]), f"{verb}DeploymentPayload", "deployment { paused }"
    )
    return {"paused": made["deployment"]["paused"]}


@operation
async def resume(play: Play, step: Step) -> Answer:
    """Resume a deployment."""
    return await pause(play, step)


@operation
async def schedule(play: Play, step: Step) -> Answer:
    """Add a schedule."""
    given = {"deploymentId": play.id(step["deployment"]), "schedule": play.plan_in(step["plan"])}
    row = (await play.mutate("createDeploymentSchedule", f"x: deploymentSchedule {{ {PLAN} }}", given))["x"]
    play.ids[step["as"]] = row["id"]
    return {"plan": play.plan_out(row)}


@operation
async def update_schedule(play: Play, step: Step) -> Answer:
    """Update a schedule."""
    given = {"id": play.id(step["schedule"]), **play.plan_in(step["plan"])}
    await play.mutate("updateDeploymentSchedule", "x: deploymentSchedule { id }", given)
    return await read_schedules(play, step)


@operation
async def delete_schedule(play: Play, step: Step) -> Answer:
    """Delete a schedule."""
    await play.by_id("deleteDeploymentSchedule", play.id(step["schedule"]))
    return {"deleted": True}


@operation
async def read_schedules(play: Play, step: Step) -> Answer:
    """Read the schedules of a deployment."""
    selection = f"schedules(first: 200) {{ nodes {{ {PLAN} }} }}"
    found = await read(play, "deployment", selection, play.ids[step["deployment"]])
    return {"plans": play.plain(play.plans_out(found["schedules"]["nodes"]))}


@operation
async def set_schedules(play: Play, step: Step) -> Answer:
    """Replace the schedules of a deployment."""
    plans = [play.plan_in(each) for each in step["plans"]]
    given = {"deploymentId": play.ids[step["deployment"]], "schedules": plans}
    await play.mutate("setDeploymentSchedules", "x: deployment { id }", given)
    return await read_schedules(play, step)


@operation
async def plan(play: Play, step: Step) -> Answer:
    """Create the runs of a window."""
    times_: Step = {key: play.at(step[key]) for key in ("since", "until") if key in step}
    given: Step = {**play.given(step, "minSeconds", "minRuns", "maxRuns"), **times_}
    await play.mutate(
        "scheduleDeployment", "x: flowRuns { id }", {"deploymentId": play.ids[step["deployment"]], **given}
    )
    return await times(play, step)


async def runs_of(play: Play, step: Step, **further: Any) -> list[Any]:
    """Return all runs of a deployment."""
    found, after, more = list[Any](), None, True
    where: Step = {"deploymentId": {"eq": play.ids[step["deployment"]]}, **further}
    while more:
        page = await play.ask(RUNS, where=where, after=after)
        found += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return found


@operation
async def times(play: Play, step: Step) -> Answer:
    """Read the times of the scheduled runs."""
    found = [run["nextScheduledStartTime"] for run in await runs_of(play, step, stateType={"eq": "SCHEDULED"})]
    ordered = sorted(found, key=lambda time: instant(time) if time else START)
    return {"times": [play.time(each) for each in ordered]}


@operation
async def settle(play: Play, step: Step) -> Answer:
    """Read the times after a pass of the scheduler."""
    await play.schedule()
    return await times(play, step)


def run_view(play: Play, row: Any) -> Answer:
    """Return a run as it was recorded."""
    pool_name = row["workPool"] and row["workPool"]["name"]
    view = {**picked(row, *SEEN, "createdBy"), "workQueue": row["workQueueName"], "workPool": pool_name}
    view["expectedStart"] = play.time(row["expectedStartTime"])
    view["nextScheduledStart"] = play.time(row["nextScheduledStartTime"])
    seen: Answer = play.plain({**view, "tags": sorted(row["tags"])})
    return seen


@operation
async def runs(play: Play, step: Step) -> Answer:
    """Read the runs of a deployment in one order."""
    found = [run_view(play, run) for run in await runs_of(play, step)]
    order = ("nextScheduledStart", "expectedStart")
    return {"runs": sorted(found, key=lambda run: json.dumps([*(run[each] for each in order), run], sort_keys=True))}


@operation
async def pick(play: Play, step: Step) -> Answer:
    """Find the scheduled run at a time."""
    for run in await runs_of(play, step, stateType={"eq": "SCHEDULED"}):
        due = play.time(run["nextScheduledStartTime"])
        near = isinstance(due, dict) and isinstance(step["at"], int | float) and abs(due["in"] - step["at"]) <= 2
        if near or due == step["at"]:
            play.ids[step["as"]] = run["id"]
            return {"found": True}
    return {"found": False}


@operation
async def run_deployment(play: Play, step: Step) -> Answer:
    """Create a run of a deployment."""
    fields = ("parameters", "jobVariables", "tags", "workQueueName", "enforceParameterSchema", "idempotencyKey")
    when = {"name": step["as"], "scheduledTime": play.at(step.get("at", 0))}
    given = {**play.given(step, *fields), "deploymentId": play.ids[step["deployment"]], **when}
    found = await play.mutate("runDeployment", f"created x: flowRun {{ {RUN} }}", given, "CreateFlowRunPayload")
    play.ids[step["as"]] = found["x"]["id"]
    return {"created": found["created"], "run": run_view(play, found["x"])}


@operation
async def propose(play: Play, step: Step) -> Answer:
    """Propose a state."""
    state = play.given(step, "type", "name")
    if "at" in step:
        state["details"] = {"scheduledTime": play.at(step["at"])}
    given = {"run": {"flowRunId": play.ids[step["run"]]}, "state": state, "force": step.get("force", False)}
    found = await play.mutate("proposeState", "status state { type }", given, "OrchestrationResult")
    return {"status": found["status"], "stateType": found["state"] and found["state"]["type"]}


@operation
async def read_run(play: Play, step: Step) -> Answer:
    """Read a run."""
    return {"run": run_view(play, await read(play, "flowRun", RUN, play.ids[step["run"]]))}


def due_in(play: Play, step: Step) -> Step:
    """Return the input of a request for due runs."""
    given = {"workPool": play.names.get(step["pool"], step["pool"]), "dueBefore": play.at(step.get("before", 0))}
    queues = {"workQueues": [play.named(each) for each in step["queues"]]} if "queues" in step else {}
    return {**given, "first": step.get("first", 10), **queues}


@operation
async def due(play: Play, step: Step) -> Answer:
    """Read the due runs of a pool."""
    found = await play.ask(DUE, input=due_in(play, step))
    return {"runs": [play.alias(run["id"]) for run in found["flowRuns"]]}


@operation
async def claim(play: Play, step: Step) -> Answer:
    """Claim the due runs of a pool."""
    given = {**due_in(play, step), "worker": f"worker-{play.nonce}", "leaseSeconds": 600}
    found = await play.mutate("claimFlowRuns", "claims { flowRun { id } }", given)
    return {"claimed": [play.alias(each["flowRun"]["id"]) for each in found["claims"]]}


@operation
async def wait(play: Play, step: Step) -> None:
    """Wait as long as the recording did."""
    await asyncio.sleep(step["seconds"])

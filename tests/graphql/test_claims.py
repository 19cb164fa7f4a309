"""Claims over HTTP: runs go to one worker each, within all limits, and back if it does not start them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from runstate.feed import WORK
from runstate.rows import FlowRun, RunClaim, WorkQueue
from runstate.services import claim_expiry
from runstate.services.heartbeats import Attention
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, do, flow_run, make_deployment, make_flow, make_flow_run, propose
from tests.graphql.test_work_pools import RUN, beat, change, due, due_runs, make_pool, pool_of, remove
from tests.subscribing import Listening, Socket

pytestmark = pytest.mark.usefixtures("consistent")

CLAIM = "id expires flowRun { id name stateType claimCount } worker { name } workQueue { name }"
CLAIMED = f"{PROBLEM} ... on ClaimFlowRunsPayload {{ replayed nextDue claims {{ {CLAIM} }} }}"
RELEASED = f"{PROBLEM} ... on ReleaseClaimsPayload {{ releasedIds missingIds }}"
START = "2026-01-01T00:00:00.000000Z"
RENEWED = f"{PROBLEM} ... on RenewClaimsPayload {{ lostIds renewed {{ id expires }} cancelling {{ id }} }}"


async def claim(ask: Ask, worker: str = "w", **given: Any) -> Any:
    """Claim due runs; return the payload or the problem."""
    given = {"workPool": "pool", "worker": worker, **given}
    return await do(ask, "claimFlowRuns", "ClaimFlowRunsInput", CLAIMED, **given)


def names(claimed: Any) -> list[str]:
    """Return the names of the claimed runs."""
    return [each["flowRun"]["name"] for each in claimed["claims"]]


async def release(ask: Ask, *claims: Any, **given: Any) -> Any:
    ids = [each["id"] for each in claims]
    return await do(ask, "releaseClaims", "ReleaseClaimsInput", RELEASED, claimIds=ids, **given)


async def renew(ask: Ask, *claims: Any, **given: Any) -> Any:
    ids = [each["id"] for each in claims]
    return await do(ask, "renewClaims", "RenewClaimsInput", RENEWED, claimIds=ids, **given)


async def expire(app: Starlette, **how: Any) -> int:
    """Have all leases end, and run the service; return the number of claims that it ended."""
    async with app.state.database.write() as transaction:
        await transaction.connection.execute(
            sa.update(RunClaim).values(expires=sa.literal(datetime(2026, 1, 1, tzinfo=UTC), RunClaim.expires.type))
        )
    return await claim_expiry.run_once(app.state.batcher, datetime.now().astimezone(), **how)


async def make_run(ask: Ask, deployment: str, **given: Any) -> str:
    """Create a due run of a deployment; return its id."""
    given = {"deploymentId": deployment, "scheduledTime": START, **given}
    return str((await do(ask, "runDeployment", "RunDeploymentInput", RUN, **given))["flowRun"]["id"])


async def one_claim(ask: Ask) -> Any:
    """Create a due run and claim it; return the claim."""
    await make_pool(ask)
    await make_run(ask, await make_deployment(ask, workPool="pool"))
    (made,) = (await claim(ask))["claims"]
    return made


async def state(ask: Ask, claim: Any) -> Any:
    """Return the state of a claimed run."""
    asked = "stateType stateName claim { id } claimCount nextScheduledStartTime state { message actor }"
    return await flow_run(ask, claim["flowRun"]["id"], asked)


async def test_due_runs_are_claimed_once_by_priority_and_time(ask: Ask) -> None:
    await due_runs(ask)
    first = await claim(ask, first=4)
    second = await claim(ask, "other")
    third = await claim(ask)

    assert names(first) == ["default-2", "default-1", "default-0", "second-2"]
    assert names(second) == ["second-1", "second-0"]
    assert (names(third), third["nextDue"]) == ([], None)
    assert first["claims"][0]["flowRun"] | {"id": ""} == {
        "id": "",
        "name": "default-2",
        "stateType": "PENDING",
        "claimCount": 1,
    }
    assert [(each["worker"]["name"], each["workQueue"]["name"]) for each in second["claims"]] == [
        ("other", "second")
    ] * 2


async def test_concurrent_claims_never_share_a_run(ask: Ask) -> None:
    await due_runs(ask)
    found = await asyncio.gather(*(claim(ask, f"w{number}", first=2) for number in range(8)))
    claimed = [name for each in found for name in names(each)]

    assert sorted(claimed) == sorted(f"{queue}-{number}" for queue in ("default", "second") for number in range(3))


async def test_claims_stay_within_the_limits_of_pool_and_queues(ask: Ask) -> None:
    await due_runs(ask, concurrencyLimit=3)
    queue = (await pool_of(ask, "workQueues { nodes { id } }"))["workQueues"]["nodes"][0]
    await change(ask, "WorkQueue", "id", id=queue["id"], concurrencyLimit=1)
    first, second = await claim(ask), await claim(ask)
    held = await pool_of(ask, "slotsInUse slotHolders(first: 2) { totalCount nodes { name } }")
    await propose(ask, first["claims"][0]["flowRun"]["id"], "COMPLETED")
    third = await claim(ask)

    assert (names(first), names(second)) == (["default-2", "second-2", "second-1"], [])
    assert (held["slotsInUse"], held["slotHolders"]["totalCount"]) == (3, 3)
    assert names(third) == ["default-1"]


async def test_waiting_runs_of_a_full_deployment_stay_where_they_are_and_hide_no_others(ask: Ask) -> None:
    await make_pool(ask)
    flow = await make_flow(ask)
    full = await make_deployment(ask, flowId=flow, workPool="pool", concurrencyLimit=1)
    free = await make_deployment(ask, flowId=flow, name="free", workPool="pool")
    waiting = [await make_run(ask, full, name=f"full-{number}") for number in range(4)]
    await make_run(ask, free, name="free", scheduledTime="2026-01-02T00:00:00Z")
    claimed = await claim(ask, first=3)
    again = await claim(ask, first=3)
    left = await due(ask)

    assert (names(claimed), names(again), left["flowRuns"]) == (["full-0", "free"], [], [])
    assert left["held"] == [{"count": 3, "reason": "DEPLOYMENT_LIMIT", "workQueue": {"name": "default"}}]
    assert await flow_run(ask, waiting[1], "stateName nextScheduledStartTime") == {
        "stateName": "Scheduled",
        "nextScheduledStartTime": START,
    }


async def test_runs_that_collide_with_a_full_deployment_are_cancelled_if_it_says_so(ask: Ask) -> None:
    await make_pool(ask)
    options = {"concurrencyLimit": 1, "concurrencyOptions": {"collisionStrategy": "CANCEL_NEW"}}
    full = await make_deployment(ask, workPool="pool", **options)
    runs = [await make_run(ask, full, name=f"r{number}") for number in range(2)]

    assert names(await claim(ask)) == ["r0"]
    assert (await flow_run(ask, runs[1], "stateType")) == {"stateType": "CANCELLED"}


async def test_paused_pools_and_queues_give_no_claims(ask: Ask) -> None:
    pool = await due_runs(ask)
    queue = (await pool_of(ask, "workQueues { nodes { id } }"))["workQueues"]["nodes"][0]
    await change(ask, "WorkQueue", "id", id=queue["id"], paused=True)
    of_queue = await claim(ask, first=1)
    await change(ask, "WorkPool", "id", id=pool, paused=True)

    assert names(of_queue) == ["second-2"]
    assert names(await claim(ask)) == []


async def test_unknown_pools_and_queues_and_bad_arguments_are_refused(ask: Ask) -> None:
    await make_pool(ask)
    wrong: list[dict[str, Any]] = [{"workPool": "x"}, {"workQueues": ["x"]}, {"dueBefore": "2200-01-01T00:00:00Z"}]
    wrong += [{"first": 201}, {"leaseSeconds": 9}, {"worker": " "}]
    answers = [await claim(ask, **given) for given in wrong]

    assert [each["__typename"] for each in answers] == ["NotFound"] * 2 + ["InvalidInput"] * 4


async def test_a_claim_marks_the_worker_and_its_queues(ask: Ask) -> None:
    await make_pool(ask)
    await make_deployment(ask, workPool="pool")
    before = await ask("{ deployments { nodes { status } } }")
    claimed = await claim(ask)
    after = await ask("{ deployments { nodes { status } } }")
    found = await pool_of(ask, "status workQueues { nodes { status } } workers { nodes { name status } }")

    assert claimed["claims"] == []
    assert [each["deployments"]["nodes"][0]["status"] for each in (before, after)] == ["NOT_READY", "READY"]
    assert found == {
        "status": "READY",
        "workQueues": {"nodes": [{"status": "READY"}]},
        "workers": {"nodes": [{"name": "w", "status": "ONLINE"}]},
    }


async def test_a_poll_without_due_runs_is_one_read(ask: Ask, app: Starlette) -> None:
    await make_pool(ask)
    await make_run(ask, await make_deployment(ask, workPool="pool"), scheduledTime="2199-01-01T00:00:00Z")
    first = await claim(ask)
    before = app.state.database.statements
    await claim(ask)

    assert first["nextDue"] == "2199-01-01T00:00:00.000000Z"
    assert app.state.database.statements - before == 1


async def test_the_same_key_returns_the_same_claims(ask: Ask) -> None:
    await due_runs(ask)
    first = await claim(ask, first=2, idempotencyKey="k")
    again = await asyncio.gather(*(claim(ask, first=2, idempotencyKey="k") for _ in range(3)))
    other = await claim(ask, "other", first=2, idempotencyKey="k")

    assert not first["replayed"]
    assert all(each["replayed"] and each["claims"] == first["claims"] for each in again)
    assert names(other) == ["default-0", "second-2"]


async def test_concurrent_requests_with_one_key_share_the_claims(ask: Ask) -> None:
    await due_runs(ask)
    found = await asyncio.gather(*(claim(ask, first=2, idempotencyKey="k") for _ in range(4)))

    assert {tuple(names(each)) for each in found} == {("default-2", "default-1")}


async def test_a_proposal_under_an_ended_claim_is_aborted_and_writes_nothing(ask: Ask) -> None:
    made = await one_claim(ask)
    run = made["flowRun"]["id"]
    under = await propose(ask, run, {"type": "PENDING", "name": "InfrastructurePending"}, claimId=made["id"])
    await release(ask, made)
    before = await flow_run(ask, run, "updated lastAnswer { rule }")
    late = [await propose(ask, run, "RUNNING", claimId=made["id"], force=force) for force in (False, True)]

    assert under["status"] == "ACCEPT"
    assert {(each["status"], each["rule"]) for each in late} == {("ABORT", "act_under_live_claim")}
    assert await flow_run(ask, run, "updated lastAnswer { rule }") == before


async def test_a_released_run_is_scheduled_again_at_its_time(ask: Ask) -> None:
    made = await one_claim(ask)
    released = await release(ask, made, message="not mine")
    after = await state(ask, made)

    assert released == {"__typename": "ReleaseClaimsPayload", "releasedIds": [made["id"]], "missingIds": []}
    assert (after["stateType"], after["claim"], after["claimCount"]) == ("SCHEDULED", None, 1)
    assert (after["nextScheduledStartTime"], after["state"]["message"]) == (START, "not mine")
    assert (await release(ask, made))["missingIds"] == [made["id"]]
    assert names(await claim(ask)) == [made["flowRun"]["name"]]


async def test_a_failed_submission_crashes_the_run(ask: Ask) -> None:
    made = await one_claim(ask)
    await release(ask, made, failed=True, message="no image")
    after = await state(ask, made)

    assert (after["stateType"], after["claim"], after["state"]["message"]) == ("CRASHED", None, "no image")


@pytest.mark.parametrize("end", ["COMPLETED", "CANCELLED"])
async def test_a_claim_ends_with_its_run(ask: Ask, end: str) -> None:
    made = await one_claim(ask)
    await propose(ask, made["flowRun"]["id"], "RUNNING", claimId=made["id"])
    held = await state(ask, made)
    await propose(ask, made["flowRun"]["id"], end, claimId=made["id"])

    assert held["claim"] == {"id": made["id"]}
    assert (await state(ask, made))["claim"] is None
    assert (await renew(ask, made))["lostIds"] == [made["id"]]


async def test_a_renewed_claim_expires_later_and_tells_what_to_cancel(ask: Ask, app: Starlette) -> None:
    made = await one_claim(ask)
    run = made["flowRun"]["id"]
    renewed = await renew(ask, made, leaseSeconds=600)
    await propose(ask, run, "RUNNING")
    await propose(ask, run, "CANCELLING")
    cancelling = await renew(ask, made)
    fields = f"{PROBLEM} ... on WorkerHeartbeatPayload {{ cancelling {{ id }} }}"
    told = await do(ask, "workerHeartbeat", "WorkerHeartbeatInput", fields, workPool="pool", worker="w")

    assert renewed["renewed"][0]["expires"] > made["expires"]
    assert (cancelling["cancelling"], cancelling["lostIds"]) == ([{"id": run}], [])
    assert told["cancelling"] == [{"id": run}]
    assert await claim_expiry.run_once(app.state.batcher, datetime.now().astimezone()) == 0


async def test_an_expired_claim_hands_the_run_to_another_worker_three_times(ask: Ask, app: Starlette) -> None:
    made = await one_claim(ask)
    ended, after = await expire(app), await state(ask, made)
    other = await claim(ask, "other")
    await expire(app)
    await claim(ask)
    await expire(app)
    last = await state(ask, made)

    assert (ended, after["stateType"], after["nextScheduledStartTime"]) == (1, "SCHEDULED", START)
    assert "expired" in after["state"]["message"]
    assert after["state"]["actor"] == "service:claim-expiry"
    assert names(other) == [made["flowRun"]["name"]]
    assert (last["stateType"], last["claimCount"], last["claim"]) == ("CRASHED", 3, None)


async def test_after_a_gap_between_rounds_nobody_loses_a_claim(ask: Ask, app: Starlette) -> None:
    made, attention = await one_claim(ask), Attention(5)

    assert await expire(app, attention=attention) == 0
    assert (await state(ask, made))["claim"] == {"id": made["id"]}


@pytest.mark.parametrize(("crash_running", "expected"), [(True, "CRASHED"), (False, "RUNNING")])
async def test_a_running_run_crashes_with_its_claim_if_the_setting_says_so(
    ask: Ask, app: Starlette, expected: str, *, crash_running: bool
) -> None:
    made = await one_claim(ask)
    await propose(ask, made["flowRun"]["id"], "RUNNING")
    await expire(app, crash_running=crash_running)
    after = await state(ask, made)

    assert (after["stateType"], after["claim"]) == (expected, None)


async def test_deleting_a_worker_hands_its_runs_back(ask: Ask) -> None:
    made = await one_claim(ask)
    worker = (await beat(ask))["worker"]["id"]
    listed = (await ask("query($id: ID!) { it: worker(id: $id) { claims { nodes { id } } } }", id=worker))["it"]
    await remove(ask, "Worker", worker)
    after = await state(ask, made)

    assert listed["claims"]["nodes"] == [{"id": made["id"]}]
    assert (after["stateType"], after["claim"]) == ("SCHEDULED", None)
    assert "worker was deleted" in after["state"]["message"]


async def test_deleting_a_pool_ends_its_claims(ask: Ask) -> None:
    made = await one_claim(ask)
    await remove(ask, "WorkPool", (await pool_of(ask, "id"))["id"])
    found = await flow_run(ask, made["flowRun"]["id"], "stateType claim { id } workQueueName workQueue { id }")

    assert found == {"stateType": "SCHEDULED", "claim": None, "workQueueName": None, "workQueue": None}


async def test_a_deleted_run_takes_its_claim_with_it(ask: Ask) -> None:
    made = await one_claim(ask)
    await remove(ask, "FlowRun", made["flowRun"]["id"])

    assert (await renew(ask, made))["lostIds"] == [made["id"]]


async def test_a_renamed_queue_renames_its_runs(ask: Ask, app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runstate.core.commands.work_pools.RUNS_AT_ONCE", 2)
    await due_runs(ask)
    queue = (await pool_of(ask, "workQueues { nodes { id } }"))["workQueues"]["nodes"][0]
    await change(ask, "WorkQueue", "id", id=queue["id"], name="renamed")
    async with app.state.database.read() as connection:
        names = sa.select(FlowRun.work_queue_name).join(WorkQueue, WorkQueue.id == FlowRun.work_queue_id)
        found = set((await connection.execute(names.where(WorkQueue.name == "renamed"))).scalars())

    assert found == {"renamed"}


AVAILABLE = """subscription($pool: String!, $queues: [String!]) {
  it: workAvailable(workPool: $pool, workQueues: $queues) { due nextDue } }"""


async def test_workers_are_woken_when_runs_are_due_and_when_they_become_due(live: Ask, socket: Socket) -> None:
    pool = await make_pool(live)
    deployment = await make_deployment(live, workPool="pool")
    await make_run(live, deployment)
    events = await socket.subscribe(AVAILABLE, pool="pool", queues=["default"])
    first = (await events.next())["it"]
    (made,) = (await claim(live))["claims"]
    await release(live, made)
    second = (await events.next())["it"]
    (made,) = (await claim(live))["claims"]
    soon = datetime.now().astimezone() + timedelta(seconds=1)
    await make_run(live, deployment, scheduledTime=soon.isoformat())
    third = (await events.next())["it"]
    await change(live, "WorkPool", "id", id=pool, paused=True)

    assert [each["due"] for each in (first, second, third)] == [1, 1, 1]
    assert third["nextDue"] is None


async def test_a_worker_that_waits_costs_no_statement(live: Ask, server: Listening, socket: Socket) -> None:
    await make_pool(live)
    deployment = await make_deployment(live, workPool="pool")
    events = await socket.subscribe(AVAILABLE, pool="pool")
    notified, watch = list[str](), server.starlette.state.feed.work
    server.starlette.state.database.listeners.append(notified.append)
    await propose(live, await make_flow_run(live), "RUNNING")
    unrelated = set(notified)
    await make_run(live, deployment)
    await events.next()
    await claim(live)
    await watch.look()

    assert WORK not in unrelated
    assert WORK in notified
    assert watch.wait_seconds > 20


async def test_waiting_for_an_unknown_pool_is_an_error(socket: Socket) -> None:
    events = await socket.subscribe(AVAILABLE, pool="nowhere")

    assert (await events.message())["type"] == "error"

"""Concurrency limits and slots over HTTP."""

import asyncio
from typing import Any

from tests.client import Ask
from tests.graphql.mutations import (
    PROBLEM,
    create,
    do,
    make_deployment,
    make_flow,
    make_flow_run,
    make_task_run,
    propose,
)

LIMITS = "{ concurrencyLimits { nodes { name limit activeSlots leases { nodes { slots holder automatic runId } } } } }"


async def take(ask: Ask, *names: str, **given: Any) -> Any:
    """Acquire slots of limits; return the answer."""
    fields = f"{PROBLEM} ... on AcquireConcurrencySlotsPayload {{ retryAfterSeconds leases {{ id slots expires }} }}"
    return await do(ask, "acquireConcurrencySlots", "AcquireConcurrencySlotsInput", fields, names=list(names), **given)


async def handle(ask: Ask, mutation: str, *leases: str, **given: Any) -> Any:
    """Release or renew leases; return the answer."""
    kind = mutation[0].upper() + mutation[1:] + "Input"
    payload = f"{mutation[0].upper()}{mutation[1:]}Payload"
    fields = f"{PROBLEM} ... on {payload} {{ leaseIds }}"
    return await do(ask, mutation, kind, fields, leaseIds=list(leases), **given)


async def active(ask: Ask) -> dict[str, int]:
    """Return the number of held slots of each limit."""
    return {each["name"]: each["activeSlots"] for each in (await ask(LIMITS))["concurrencyLimits"]["nodes"]}


async def test_slots_of_several_limits_are_acquired_atomically(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    await create(ask, "concurrencyLimit", name="b", limit=2)
    first = await take(ask, "a", "b", "unknown", holder="me")
    assert len(first["leases"]) == 2
    second = await take(ask, "b", "a")
    assert second["leases"] == []
    assert second["retryAfterSeconds"] > 0
    assert await active(ask) == {"a": 1, "b": 1}


async def test_a_lease_is_released_once(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=2)
    leases = [(await take(ask, "a"))["leases"][0]["id"] for _ in range(2)]
    answers = await asyncio.gather(*(handle(ask, "releaseConcurrencySlots", leases[0]) for _ in range(5)))
    assert sorted(len(each["leaseIds"]) for each in answers) == [0, 0, 0, 0, 1]
    assert await active(ask) == {"a": 1}


async def test_a_lease_is_renewed_while_it_exists(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    (lease,) = (await take(ask, "a", leaseSeconds=60))["leases"]
    assert (await handle(ask, "renewConcurrencyLeases", lease["id"]))["leaseIds"] == [lease["id"]]
    document = '{ concurrencyLimit(by: { name: "a" }) { leases { nodes { expires } } } }'
    (renewed,) = (await ask(document))["concurrencyLimit"]["leases"]["nodes"]
    assert renewed["expires"] > lease["expires"]
    await handle(ask, "releaseConcurrencySlots", lease["id"])
    assert (await handle(ask, "renewConcurrencyLeases", lease["id"]))["leaseIds"] == []


async def test_a_renewed_lease_of_a_running_task_run_does_not_expire(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:db", limit=1)
    await propose(ask, await make_task_run(ask, tags=["db"]), "RUNNING", task=True)
    document = '{ concurrencyLimit(by: { name: "tag:db" }) { leases { nodes { id expires } } } }'
    (lease,) = (await ask(document))["concurrencyLimit"]["leases"]["nodes"]

    assert (await handle(ask, "renewConcurrencyLeases", lease["id"], leaseSeconds=1))["leaseIds"] == [lease["id"]]
    assert (await ask(document))["concurrencyLimit"]["leases"]["nodes"] == [lease]
    assert lease["expires"] is None


async def test_more_slots_than_the_limit_has_are_a_problem(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    answer = await take(ask, "a", slots=2)
    assert (answer["__typename"], answer["path"]) == ("InvalidInput", ["slots"])


async def test_a_limit_lowered_below_its_held_slots_refuses_acquisitions_only(ask: Ask) -> None:
    made = await create(ask, "concurrencyLimit", name="a", limit=2)
    leases = [(await take(ask, "a"))["leases"][0]["id"] for _ in range(2)]
    fields = f"{PROBLEM} ... on UpdateConcurrencyLimitPayload {{ concurrencyLimit {{ limit activeSlots }} }}"
    given = {"id": made["concurrencyLimit"]["id"], "limit": 1}
    changed = await do(ask, "updateConcurrencyLimit", "UpdateConcurrencyLimitInput", fields, **given)
    assert changed["concurrencyLimit"] == {"limit": 1, "activeSlots": 2}
    await handle(ask, "releaseConcurrencySlots", leases[0])
    assert (await take(ask, "a"))["leases"] == []
    await handle(ask, "releaseConcurrencySlots", leases[1])
    assert len((await take(ask, "a"))["leases"]) == 1


async def test_slots_of_a_rate_limit_decay_and_refusals_change_nothing(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="rate", limit=2, slotDecayPerSecond=0.001)
    assert len((await take(ask, "rate", slots=2))["leases"]) == 1
    document = '{ concurrencyLimit(by: { name: "rate" }) { updated activeSlots } }'
    before = (await ask(document))["concurrencyLimit"]
    waits = [(await take(ask, "rate"))["retryAfterSeconds"] for _ in range(5)]
    assert all(900 < each <= 1000 for each in waits)
    assert waits == sorted(waits, reverse=True)
    assert (await ask(document))["concurrencyLimit"] == before


async def test_the_decay_of_slots_can_be_changed_only_while_none_is_held(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=2)
    (lease,) = (await take(ask, "a"))["leases"]
    changed = await create(ask, "concurrencyLimit", name="a", limit=2, slotDecayPerSecond=1)
    assert (changed["__typename"], changed["path"]) == ("InvalidInput", ["slotDecayPerSecond"])
    await handle(ask, "releaseConcurrencySlots", lease["id"])
    assert not (await create(ask, "concurrencyLimit", name="a", limit=2, slotDecayPerSecond=1))["created"]


async def test_a_limit_lists_its_holders_and_can_be_reset(ask: Ask) -> None:
    made = await create(ask, "concurrencyLimit", name="tag:db", limit=2)
    task = await make_task_run(ask, tags=["db"])
    await propose(ask, task, "RUNNING", task=True)
    await take(ask, "tag:db", holder="a script")
    (limit,) = (await ask(LIMITS))["concurrencyLimits"]["nodes"]
    holders = {(each["holder"], each["runId"], each["automatic"]) for each in limit["leases"]["nodes"]}
    assert holders == {("a script", None, False), (None, task, True)}
    document = "mutation($id: ID!) { resetConcurrencyLimit(id: $id) { __typename } }"
    await ask(document, id=made["concurrencyLimit"]["id"])
    assert await active(ask) == {"tag:db": 0}


async def test_slots_that_a_client_acquired_for_a_run_are_released_when_it_ends(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    await take(ask, "a", run={"flowRunId": run})
    await propose(ask, run, {"type": "PAUSED"})
    assert await active(ask) == {"a": 1}
    await propose(ask, run, "CRASHED", force=True)
    assert await active(ask) == {"a": 0}


async def test_a_run_that_has_ended_acquires_no_slots(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    run = await make_flow_run(ask, state={"type": "COMPLETED"})
    task = await make_task_run(ask, state={"type": "FAILED"})
    for holder in ({"flowRunId": run}, {"taskRunId": task}):
        answer = await take(ask, "a", run=holder)
        assert (answer["__typename"], answer["path"]) == ("InvalidInput", ["run"])
    assert await active(ask) == {"a": 0}


async def test_force_acquires_no_slot_and_releases_none(ask: Ask) -> None:
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow, concurrencyLimit=1)
    claimed = await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
    forced = await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
    assert (await propose(ask, claimed, "PENDING"))["status"] == "ACCEPT"
    await propose(ask, forced, "RUNNING", force=True)
    await propose(ask, forced, "COMPLETED")
    assert list((await active(ask)).values()) == [1]


async def test_a_run_that_resumes_after_a_pause_acquires_a_slot_again_or_waits(ask: Ask) -> None:
    flow = await make_flow(ask)
    deployment = await make_deployment(ask, flowId=flow, concurrencyLimit=1)
    first = await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
    second = await make_flow_run(ask, flowId=flow, deploymentId=deployment, state={"type": "SCHEDULED"})
    for state in ("PENDING", "RUNNING", "PAUSED"):
        assert (await propose(ask, first, state))["status"] == "ACCEPT"
    assert (await propose(ask, second, "PENDING"))["status"] == "ACCEPT"
    waits = await propose(ask, first, "RUNNING")
    assert (waits["status"], waits["rule"]) == ("WAIT", "take_deployment_slot_again")
    await propose(ask, second, "CANCELLED", force=True)
    assert (await propose(ask, first, "RUNNING"))["status"] == "ACCEPT"


async def test_deleting_a_limit_deletes_its_leases(ask: Ask) -> None:
    made = await create(ask, "concurrencyLimit", name="a", limit=1)
    await take(ask, "a")
    document = "mutation($id: ID!) { deleteConcurrencyLimit(id: $id) { __typename } }"
    assert (await ask(document, id=made["concurrencyLimit"]["id"]))["deleteConcurrencyLimit"][
        "__typename"
    ] == "DeletePayload"
    assert await active(ask) == {}

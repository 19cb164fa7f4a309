"""Pairs of features: each test has two of them meet, and the database agrees with itself afterwards."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runstate.services import late, orphans, pause_expiry
from tests.client import Ask
from tests.graphql.mutations import PROBLEM, create, do, flow_run, make_flow, make_flow_run, make_task_run, propose
from tests.graphql.pairs import batch, delete, deployed, started, state_of, task_run
from tests.graphql.test_pausing import verb
from tests.graphql.test_slots import active, take

pytestmark = pytest.mark.usefixtures("consistent")

Later = Callable[..., Awaitable[int]]
DATA = {"type": "reference", "key": "x"}
KEYED: dict[str, Any] = {"type": "COMPLETED", "data": DATA, "details": {"cacheKey": "c"}}
CACHED: dict[str, Any] = {"type": "RUNNING", "details": {"cacheKey": "c"}}


# Retries


async def test_retry_and_cancel_a_run_that_awaits_a_retry_in_its_process_does_not_start_again(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"}, policy={"retries": 3})
    assert (await propose(ask, run, "FAILED"))["state"]["name"] == "AwaitingRetry"
    cancelled = await verb(ask, "cancel", id=run)
    assert (cancelled["status"], cancelled["state"]["type"]) == ("ACCEPT", "CANCELLING")
    assert (await propose(ask, run, "RUNNING"))["rule"] == "finish_cancelling"
    assert (await propose(ask, run, "CANCELLED"))["status"] == "ACCEPT"


async def test_reschedule_and_cancel_a_run_that_awaits_a_new_process_is_cancelled_at_once(ask: Ask) -> None:
    _, (run,) = await deployed(ask)
    await started(ask, run)
    await do(ask, "updateFlowRun", "UpdateFlowRunInput", PROBLEM, id=run, infrastructurePid="42")
    await propose(ask, run, "FAILED")
    assert (await verb(ask, "retry", id=run))["state"]["name"] == "AwaitingRetry"
    assert (await verb(ask, "cancel", id=run))["state"]["type"] == "CANCELLED"


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"])
async def test_retry_and_a_run_that_has_not_ended_changes_nothing(ask: Ask, state: str) -> None:
    _, (run,) = await deployed(ask)
    for each in ("RUNNING", state):
        await propose(ask, run, each, force=True)
    before = await flow_run(ask, run, "version stateType")
    assert (await verb(ask, "retry", id=run))["status"] == "ABORT"
    assert await flow_run(ask, run, "version stateType") == before


async def test_retry_and_idempotency_a_later_repetition_is_answered_as_it_was(ask: Ask) -> None:
    _, (run,) = await deployed(ask)
    await propose(ask, run, "FAILED")
    first = await verb(ask, "retry", id=run, delaySeconds=60, idempotencyKey="k")
    await propose(ask, run, "PENDING")
    again = await verb(ask, "retry", id=run, delaySeconds=60, idempotencyKey="k")
    assert (again["replayed"], again["state"]["id"]) == (True, first["state"]["id"])
    assert await state_of(ask, run) == "PENDING"


async def test_retry_and_pause_a_key_can_be_used_again_in_the_next_attempt(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"}, policy={"retries": 1})
    for attempt in (1, 2):
        assert (await verb(ask, "pause", id=run, pauseKey="k"))["status"] == "ACCEPT"
        assert (await verb(ask, "resume", id=run))["status"] == "ACCEPT"
        assert (await verb(ask, "pause", id=run, pauseKey="k"))["rule"] == "pause_once_for_each_key"
        await propose(ask, run, "FAILED")
        assert await state_of(ask, run) == ("SCHEDULED" if attempt == 1 else "FAILED")
        if attempt == 1:
            await propose(ask, run, "RUNNING")


async def test_retry_and_persisted_result_a_completed_run_keeps_it(ask: Ask) -> None:
    _, (run,) = await deployed(ask)
    await started(ask, run)
    await propose(ask, run, {"type": "COMPLETED", "data": DATA})
    assert (await verb(ask, "retry", id=run))["rule"] == "keep_result_of_flow_run"


async def test_retry_and_slots_of_a_client_they_are_kept_until_the_run_ends(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    run = await make_flow_run(ask, state={"type": "RUNNING"}, policy={"retries": 1})
    await take(ask, "a", run={"flowRunId": run})
    await propose(ask, run, "FAILED")
    assert await active(ask) == {"a": 1}
    await propose(ask, run, "RUNNING")
    assert (await propose(ask, run, "FAILED"))["state"]["type"] == "FAILED"
    assert await active(ask) == {"a": 0}


async def test_retry_and_limit_another_run_starts_while_one_awaits_its_retry(ask: Ask) -> None:
    _, (first, second) = await deployed(ask, 2, concurrencyLimit=1)
    await do(ask, "updateFlowRun", "UpdateFlowRunInput", PROBLEM, id=first, policy={"retries": 1})
    await started(ask, first)
    await propose(ask, first, "FAILED")
    await started(ask, second)
    assert (await propose(ask, first, "RUNNING"))["status"] == "WAIT"
    await propose(ask, second, "COMPLETED")
    assert (await propose(ask, first, "RUNNING"))["status"] == "ACCEPT"
    assert list((await active(ask)).values()) == [1]


# Caches


async def test_cache_and_retry_a_task_run_that_awaits_a_retry_gets_a_result_stored_meanwhile(ask: Ask) -> None:
    first, second = [await make_task_run(ask, key, policy={"retries": 1}) for key in "ab"]
    await propose(ask, first, CACHED, task=True)
    assert (await propose(ask, first, "FAILED", task=True))["state"]["name"] == "AwaitingRetry"
    await propose(ask, second, KEYED, task=True)
    answer = await propose(ask, first, CACHED, task=True)
    assert (answer["state"]["name"], answer["state"]["data"]) == ("Cached", DATA)


async def test_cache_and_limit_a_cached_result_needs_no_slot(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    await propose(ask, await make_task_run(ask, "a", tags=["x"]), "RUNNING", task=True)
    await propose(ask, await make_task_run(ask, "b"), KEYED, task=True)
    answer = await propose(ask, await make_task_run(ask, "c", tags=["x"]), CACHED, task=True)
    assert answer["state"]["name"] == "Cached"
    assert await active(ask) == {"tag:x": 1}


async def test_cache_and_batch_a_result_is_used_in_the_batch_that_stores_it(ask: Ask) -> None:
    first, second = [await make_task_run(ask, key) for key in "ab"]
    answers = await batch(
        ask, {"run": {"taskRunId": first}, "state": KEYED}, {"run": {"taskRunId": second}, "state": CACHED}
    )
    assert (answers[1]["state"]["name"], answers[1]["state"]["data"]) == ("Cached", DATA)


async def test_cache_and_unpersisted_result_there_is_nothing_to_use(ask: Ask) -> None:
    first, second = [await make_task_run(ask, key) for key in "ab"]
    await propose(ask, first, {**KEYED, "data": {"type": "unpersisted"}}, task=True)
    assert (await propose(ask, second, CACHED, task=True))["status"] == "ACCEPT"


@pytest.mark.parametrize("what", ["run", "state"])
async def test_cache_and_deletion_a_result_that_was_replaced_does_not_come_back(ask: Ask, what: str) -> None:
    old, new, third = [await make_task_run(ask, key) for key in "abc"]
    await propose(ask, old, KEYED, task=True)
    await propose(ask, new, {"type": "RUNNING", "details": {"cacheKey": "c", "refreshCache": True}}, task=True)
    stored = await propose(ask, new, {**KEYED, "data": None}, task=True)
    if what == "run":
        await delete(ask, "TaskRun", new)
    else:
        await propose(ask, new, "FAILED", task=True)
        assert await delete(ask, "TaskRunState", stored["state"]["id"]) == "DeletePayload"
    assert (await propose(ask, third, CACHED, task=True))["status"] == "ACCEPT"


async def test_cache_and_deletion_of_the_older_run_the_newer_result_stays(ask: Ask) -> None:
    old, new, third = [await make_task_run(ask, key) for key in "abc"]
    await propose(ask, old, KEYED, task=True)
    await propose(ask, new, {**KEYED, "data": {"type": "reference", "key": "y"}}, task=True)
    await delete(ask, "TaskRun", old)
    answer = await propose(ask, third, CACHED, task=True)
    assert answer["state"]["data"] == {"type": "reference", "key": "y"}


async def test_cache_and_slots_a_running_run_that_gets_a_cached_result_releases_its_slot(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    task = await make_task_run(ask, "a", tags=["x"])
    await propose(ask, task, "RUNNING", task=True)
    await propose(ask, await make_task_run(ask, "b"), KEYED, task=True)
    assert (await propose(ask, task, CACHED, task=True))["state"]["name"] == "Cached"
    assert await active(ask) == {"tag:x": 0}


# Limits and slots


async def test_limit_and_suspension_and_cancel_a_run_that_queues_for_a_slot_is_cancelled_at_once(ask: Ask) -> None:
    _, (first, second) = await deployed(ask, 2, concurrencyLimit=1)
    await do(ask, "updateFlowRun", "UpdateFlowRunInput", PROBLEM, id=first, infrastructurePid="42")
    await started(ask, first)
    await verb(ask, "suspend", id=first)
    await started(ask, second)
    await verb(ask, "resume", id=first)
    assert (await propose(ask, first, "PENDING"))["state"]["name"] == "AwaitingConcurrencySlot"
    assert (await verb(ask, "cancel", id=first))["state"]["type"] == "CANCELLED"


async def test_limit_and_input_what_a_run_gets_while_it_waits_for_a_slot_is_not_stored(ask: Ask) -> None:
    _, (first, second) = await deployed(ask, 2, concurrencyLimit=1)
    await started(ask, first)
    given = {"flowRunId": first, "key": "s", "value": {"type": "object"}}
    await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", "__typename", **given)
    await verb(ask, "pause", id=first, runInputKeyset={"schema": "s", "response": "r"})
    await started(ask, second)
    inputs = "inputs { nodes { key } }"
    assert (await verb(ask, "resume", id=first, runInput={}))["status"] == "WAIT"
    assert (await flow_run(ask, first, inputs))["inputs"]["nodes"] == [{"key": "s"}]
    await propose(ask, second, "COMPLETED")
    assert (await verb(ask, "resume", id=first, runInput={}))["status"] == "ACCEPT"
    assert len((await flow_run(ask, first, inputs))["inputs"]["nodes"]) == 2


async def test_limit_and_its_removal_a_run_that_held_a_slot_ends_as_usual(ask: Ask) -> None:
    deployment, (first, second) = await deployed(ask, 2, concurrencyLimit=1)
    await started(ask, first)
    for slots in (None, 1):
        given = {"id": deployment, "concurrencyLimit": slots}
        await do(ask, "updateDeployment", "UpdateDeploymentInput", PROBLEM, **given)
    await started(ask, second)
    for run in (first, second):
        assert (await propose(ask, run, "COMPLETED"))["status"] == "ACCEPT"
    assert list((await active(ask)).values()) == [0]


async def test_limit_and_reset_the_end_of_a_run_releases_nothing_twice(ask: Ask) -> None:
    made = await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    first, second = [await make_task_run(ask, key, tags=["x"]) for key in "ab"]
    await propose(ask, first, "RUNNING", task=True)
    document = "mutation($id: ID!) { resetConcurrencyLimit(id: $id) { __typename } }"
    await ask(document, id=made["concurrencyLimit"]["id"])
    await propose(ask, second, "RUNNING", task=True)
    await propose(ask, first, "COMPLETED", task=True)
    assert await active(ask) == {"tag:x": 1}


async def test_limit_and_its_deletion_a_run_that_held_a_slot_ends_as_usual(ask: Ask) -> None:
    made = await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    task, other = [await make_task_run(ask, key, tags=["x"]) for key in "ab"]
    await propose(ask, task, "RUNNING", task=True)
    await delete(ask, "ConcurrencyLimit", made["concurrencyLimit"]["id"])
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    assert (await propose(ask, other, "RUNNING", task=True))["status"] == "ACCEPT"
    assert (await propose(ask, task, "COMPLETED", task=True))["status"] == "ACCEPT"
    assert await active(ask) == {"tag:x": 1}


async def test_limit_and_late_a_run_without_a_slot_is_cancelled(ask: Ask, serve_later: Later) -> None:
    options = {"collisionStrategy": "CANCEL_NEW"}
    _, (first, second) = await deployed(ask, 2, concurrencyLimit=1, concurrencyOptions=options)
    await started(ask, first)
    assert await serve_later(late, minutes=1) == 1
    assert await state_of(ask, second) == "CANCELLED"


async def test_slots_and_cancellation_they_are_kept_until_it_has_ended(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    await take(ask, "a", run={"flowRunId": run})
    await verb(ask, "cancel", id=run)
    assert await active(ask) == {"a": 1}
    await propose(ask, run, "CANCELLED")
    assert await active(ask) == {"a": 0}


async def test_slots_and_deletion_those_of_a_run_and_its_task_runs_are_released(ask: Ask) -> None:
    for name in ("a", "tag:x"):
        await create(ask, "concurrencyLimit", name=name, limit=1)
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    task = await make_task_run(ask, flowRunId=run, tags=["x"])
    await propose(ask, task, "RUNNING", task=True)
    await take(ask, "a", run={"taskRunId": task})
    await delete(ask, "FlowRun", run)
    assert await active(ask) == {"a": 0, "tag:x": 0}


async def test_slots_and_a_lost_flow_run_those_of_its_task_runs_are_released(ask: Ask, serve_later: Later) -> None:
    await create(ask, "concurrencyLimit", name="a", limit=1)
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    task = await make_task_run(ask, flowRunId=run, policy={"retries": 1})
    await propose(ask, task, "RUNNING", task=True)
    await take(ask, "a", run={"taskRunId": task})
    assert (await propose(ask, task, "FAILED", task=True))["state"]["name"] == "AwaitingRetry"
    await propose(ask, run, "CRASHED")
    assert await serve_later(orphans, seconds=11) == 1
    assert (await task_run(ask, task))["stateType"] == "CRASHED"
    assert await active(ask) == {"a": 0}


async def test_tags_and_update_a_gained_tag_takes_a_slot_at_the_next_start(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    task = await make_task_run(ask)
    await propose(ask, task, "RUNNING", task=True)
    await do(ask, "updateTaskRun", "UpdateTaskRunInput", PROBLEM, id=task, tags=["x"])
    assert await active(ask) == {"tag:x": 0}
    await propose(ask, task, "RUNNING", task=True)
    assert await active(ask) == {"tag:x": 1}


# Rate limits


async def rate(ask: Ask, limit: int = 1, per_second: float = 0.001) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=limit, slotDecayPerSecond=per_second)


async def test_rate_limit_and_batch_the_rest_waits_for_the_exact_time(ask: Ask) -> None:
    await rate(ask, 2)
    tasks = [await make_task_run(ask, key, tags=["x"]) for key in "abc"]
    answers = await batch(ask, *({"run": {"taskRunId": each}, "state": {"type": "RUNNING"}} for each in tasks))
    assert [each["status"] for each in answers] == ["ACCEPT", "ACCEPT", "WAIT"]
    assert 990 < answers[2]["retryAfterSeconds"] <= 1000


async def test_rate_limit_and_dry_run_nothing_is_used_up(ask: Ask) -> None:
    await rate(ask)
    task = await make_task_run(ask, tags=["x"])
    for _ in range(3):
        assert (await propose(ask, task, "RUNNING", task=True, dryRun=True))["status"] == "ACCEPT"
    assert await active(ask) == {"tag:x": 0}


async def test_rate_limit_and_schedule_a_run_that_is_not_due_uses_nothing_up(ask: Ask) -> None:
    await rate(ask)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    task = await make_task_run(ask, tags=["x"], state={"type": "SCHEDULED", "details": {"scheduledTime": later}})
    answer = await propose(ask, task, "RUNNING", task=True)
    assert (answer["status"], answer["rule"]) == ("WAIT", "wait_for_scheduled_time")
    assert await active(ask) == {"tag:x": 0}


async def test_rate_limit_and_retry_each_attempt_needs_a_slot(ask: Ask) -> None:
    await rate(ask, 1)
    task, other = [await make_task_run(ask, key, tags=["x"], policy={"retries": 1}) for key in "ab"]
    await propose(ask, task, "RUNNING", task=True)
    await propose(ask, task, "FAILED", task=True)
    await propose(ask, other, "RUNNING", task=True)
    answer = await propose(ask, task, "RUNNING", task=True)
    assert (answer["status"], answer["rule"]) == ("WAIT", "take_tag_slots")


async def test_rate_limit_and_deletion_the_slots_of_the_run_are_free_at_once(ask: Ask) -> None:
    await rate(ask, 3)
    tasks = [await make_task_run(ask, key, tags=["x"]) for key in "abc"]
    for each in tasks:
        await propose(ask, each, "RUNNING", task=True)
    await delete(ask, "TaskRun", tasks[0])
    answers = [await propose(ask, await make_task_run(ask, key, tags=["x"]), "RUNNING", task=True) for key in "de"]
    assert [each["status"] for each in answers] == ["ACCEPT", "WAIT"]


async def test_rate_limit_and_many_slots_more_than_ever_are_free_is_a_mistake(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="slow", limit=100, slotDecayPerSecond=1e-10)
    answer = await take(ask, "slow", slots=50)
    assert (answer["__typename"], answer["path"]) == ("InvalidInput", ["slots"])


# Idempotency


async def test_idempotency_and_batch_a_twin_is_answered_as_the_first(ask: Ask) -> None:
    run = await make_flow_run(ask)
    start = {"run": {"flowRunId": run}, "state": {"type": "RUNNING"}, "idempotencyKey": "k"}
    first, twin, other = await batch(ask, start, start, {**start, "state": {"type": "COMPLETED"}})
    assert [first["replayed"], twin["replayed"], other["__typename"]] == [False, True, "IdempotencyConflict"]
    assert twin["state"]["id"] == first["state"]["id"]
    assert (await flow_run(ask, run, "version"))["version"] == 2


async def test_idempotency_and_deletion_of_the_state_the_answer_stays(ask: Ask) -> None:
    run = await make_flow_run(ask)
    first = await propose(ask, run, "RUNNING", idempotencyKey="k")
    await propose(ask, run, "COMPLETED")
    await delete(ask, "FlowRunState", first["state"]["id"])
    again = await propose(ask, run, "RUNNING", idempotencyKey="k")
    assert (again["status"], again["replayed"], again["state"]) == ("ACCEPT", True, None)


async def test_idempotency_and_waiting_the_key_is_not_used_up(ask: Ask) -> None:
    await create(ask, "concurrencyLimit", name="tag:x", limit=1)
    first, second = [await make_task_run(ask, key, tags=["x"]) for key in "ab"]
    await propose(ask, first, "RUNNING", task=True)
    assert (await propose(ask, second, "RUNNING", task=True, idempotencyKey="k"))["status"] == "WAIT"
    await propose(ask, first, "COMPLETED", task=True)
    answer = await propose(ask, second, "RUNNING", task=True, idempotencyKey="k")
    assert (answer["status"], answer["replayed"]) == ("ACCEPT", False)


async def test_idempotency_and_deletion_of_the_run_the_key_is_free(ask: Ask) -> None:
    flow = await make_flow(ask)
    first = await make_flow_run(ask, flowId=flow, idempotencyKey="k")
    assert await make_flow_run(ask, flowId=flow, idempotencyKey="k") == first
    await delete(ask, "FlowRun", first)
    assert await make_flow_run(ask, flowId=flow, idempotencyKey="k") != first


async def test_idempotency_and_dry_run_the_key_is_not_used_up(ask: Ask) -> None:
    run = await make_flow_run(ask)
    assert (await propose(ask, run, "RUNNING", idempotencyKey="k", dryRun=True))["status"] == "ACCEPT"
    answer = await propose(ask, run, "RUNNING", idempotencyKey="k")
    assert (answer["replayed"], answer["state"]["version"]) == (False, 2)


# Pauses


async def test_pause_and_task_run_it_is_not_ready_and_starts_after_the_resumption(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"})
    task = await make_task_run(ask, flowRunId=run)
    await verb(ask, "pause", id=run, timeoutSeconds=60)
    assert (await propose(ask, task, "RUNNING", task=True))["state"]["name"] == "NotReady"
    await verb(ask, "resume", id=run)
    assert (await propose(ask, task, "RUNNING", task=True))["status"] == "ACCEPT"


async def test_pause_and_input_an_expired_one_fails_and_the_input_is_not_stored(ask: Ask, serve_later: Later) -> None:
    run = await make_flow_run(ask, state={"type": "RUNNING"}, policy={"retries": 3})
    given = {"flowRunId": run, "key": "s", "value": {"type": "object"}}
    await do(ask, "createFlowRunInput", "CreateFlowRunInputInput", "__typename", **given)
    await verb(ask, "pause", id=run, timeoutSeconds=0, runInputKeyset={"schema": "s", "response": "r"})
    answer = await verb(ask, "resume", id=run, runInput={})
    assert (answer["rule"], answer["state"]["type"]) == ("expired_pause_fails", "FAILED")
    assert (await flow_run(ask, run, "inputs { nodes { key } }"))["inputs"]["nodes"] == [{"key": "s"}]
    assert await serve_later(pause_expiry, hours=1) == 0


async def test_suspension_and_schedule_a_resumed_run_starts_without_being_counted_again(
    ask: Ask, serve_later: Later
) -> None:
    _, (run,) = await deployed(ask)
    await started(ask, run)
    await verb(ask, "suspend", id=run)
    await verb(ask, "resume", id=run)
    assert await serve_later(late, hours=1) == 0
    await started(ask, run)
    assert (await flow_run(ask, run, "runCount policy { resuming }")) == {"runCount": 1, "policy": {"resuming": False}}

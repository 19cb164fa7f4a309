"""Proposals over HTTP, apart from the rules."""

import asyncio
from uuid import uuid4

from tests.client import Ask
from tests.graphql.mutations import PROBLEM, RESULT, flow_run, make_flow_run, make_task_run, propose


async def test_an_accepted_proposal_changes_the_state_of_the_run(ask: Ask) -> None:
    run = await make_flow_run(ask)
    answer = await propose(ask, run, {"type": "RUNNING", "message": "go"})
    assert (answer["status"], answer["state"]["version"], answer["state"]["message"]) == ("ACCEPT", 2, "go")
    assert answer["run"] == {"id": run, "stateType": "RUNNING", "stateName": "Running", "version": 2, "runCount": 1}
    assert answer["rule"] is None
    assert not answer["replayed"]


async def test_an_answer_names_the_deciding_rule_and_all_evaluated_ones(ask: Ask) -> None:
    run = await make_flow_run(ask)
    answer = await propose(ask, run, "PENDING")
    assert (answer["status"], answer["rule"]) == ("ABORT", "claim_once")
    assert answer["reason"]
    assert [each["rule"] for each in answer["considered"]][-1] == "claim_once"
    assert {each["verdict"] for each in answer["considered"]} == {"PASS", "ABORT"}


async def test_a_dry_run_explains_and_writes_nothing(ask: Ask) -> None:
    run = await make_flow_run(ask)
    answer = await propose(ask, run, {"type": "RUNNING", "name": "Going"}, dryRun=True)
    assert answer["status"] == "ACCEPT"
    assert (answer["proposed"]["type"], answer["proposed"]["name"]) == ("RUNNING", "Going")
    assert answer["state"]["type"] == "PENDING"
    assert answer["considered"]
    assert (await flow_run(ask, run, "version"))["version"] == 1


async def test_a_proposal_with_another_expected_version_is_refused(ask: Ask) -> None:
    run = await make_flow_run(ask)
    assert (await propose(ask, run, "RUNNING", expectedVersion=1))["status"] == "ACCEPT"
    answer = await propose(ask, run, "COMPLETED", expectedVersion=1)
    assert (answer["__typename"], answer["currentVersion"]) == ("VersionConflict", 2)


async def test_one_of_many_proposals_with_the_same_expected_version_is_accepted(ask: Ask) -> None:
    run = await make_flow_run(ask)
    answers = await asyncio.gather(*(propose(ask, run, "RUNNING", expectedVersion=1) for _ in range(20)))
    assert sorted(each["__typename"] for each in answers) == ["OrchestrationResult"] + ["VersionConflict"] * 19


async def test_a_repeated_proposal_with_the_same_key_gets_the_same_answer(ask: Ask) -> None:
    run = await make_flow_run(ask)
    first = await propose(ask, run, "RUNNING", idempotencyKey="k", expectedVersion=1)
    await propose(ask, run, "COMPLETED")
    again = await propose(ask, run, "RUNNING", idempotencyKey="k", expectedVersion=1)
    assert again["replayed"]
    same = ("status", "reason", "rule", "considered", "state")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    assert again["run"]["stateType"] == "COMPLETED"
    assert (await flow_run(ask, run, "version"))["version"] == 3


async def test_another_proposal_with_the_same_key_is_a_conflict(ask: Ask) -> None:
    run = await make_flow_run(ask)
    await propose(ask, run, "RUNNING", idempotencyKey="k")
    answer = await propose(ask, run, {"type": "RUNNING", "message": "other"}, idempotencyKey="k")
    assert (answer["__typename"], answer["code"]) == ("IdempotencyConflict", "IDEMPOTENCY_CONFLICT")


async def test_a_key_is_used_only_by_an_answer_that_wrote_something(ask: Ask) -> None:
    run = await make_flow_run(ask)
    assert (await propose(ask, run, "PENDING", idempotencyKey="k"))["status"] == "ABORT"
    assert (await propose(ask, run, "RUNNING", idempotencyKey="k"))["status"] == "ACCEPT"


async def test_concurrent_proposals_with_the_same_key_are_applied_once(ask: Ask) -> None:
    run = await make_flow_run(ask)
    answers = await asyncio.gather(*(propose(ask, run, "RUNNING", idempotencyKey="k") for _ in range(20)))
    assert sum(not each["replayed"] for each in answers) == 1
    assert len({each["state"]["id"] for each in answers}) == 1


async def test_force_skips_the_rules(ask: Ask) -> None:
    run = await make_flow_run(ask, state={"type": "CANCELLED"})
    assert (await propose(ask, run, "PENDING"))["status"] == "ABORT"
    answer = await propose(ask, run, "PENDING", force=True)
    assert (answer["status"], answer["considered"]) == ("ACCEPT", [])


async def test_a_proposal_for_an_unknown_run_is_not_found(ask: Ask) -> None:
    run = await make_flow_run(ask)
    for ref in (str(uuid4()), run):
        answer = await propose(ask, ref, "RUNNING", task=True)
        assert (answer["__typename"], answer["missingId"]) == ("NotFound", ref)


async def test_proposals_are_decided_in_order_as_one_batch(ask: Ask) -> None:
    run = await make_flow_run(ask)
    task = await make_task_run(ask, flowRunId=run)
    states = [
        {"run": {"taskRunId": task}, "state": {"type": "RUNNING"}},
        {"run": {"flowRunId": run}, "state": {"type": "RUNNING"}},
        {"run": {"taskRunId": task}, "state": {"type": "RUNNING"}},
        {"run": {"taskRunId": "nonsense"}, "state": {"type": "RUNNING"}},
        {"run": {"taskRunId": str(uuid4())}, "state": {"type": "RUNNING"}},
        {"run": {"taskRunId": task}, "state": {"type": "COMPLETED"}, "expectedVersion": 2},
        {"run": {"taskRunId": task}, "state": {"type": "FAILED"}, "expectedVersion": 2},
    ]
    document = f"mutation($inputs: [ProposeStateInput!]!) {{ it: proposeStates(inputs: $inputs) {{ {RESULT} }} }}"
    answers = (await ask(document, inputs=states))["it"]
    assert [each.get("status") or each["__typename"] for each in answers] == [
        "ABORT",
        "ACCEPT",
        "ACCEPT",
        "InvalidInput",
        "NotFound",
        "ACCEPT",
        "VersionConflict",
    ]
    assert answers[3]["path"] == ["run", "taskRunId"]


async def test_a_batch_has_from_1_to_200_proposals(ask: Ask) -> None:
    document = f"mutation($inputs: [ProposeStateInput!]!) {{ it: proposeStates(inputs: $inputs) {{ {PROBLEM} }} }}"
    proposal = {"run": {"flowRunId": str(uuid4())}, "state": {"type": "RUNNING"}}
    for count in (0, 201):
        (error,) = (await ask.raw(document, inputs=[proposal] * count))["errors"]
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
    assert len((await ask(document, inputs=[proposal] * 200))["it"]) == 200


async def test_every_state_has_its_actor_and_its_request_id(ask: Ask) -> None:
    run = await make_flow_run(ask)
    document = "mutation($input: ProposeStateInput!) { proposeState(input: $input) { __typename } }"
    body = {"query": document, "variables": {"input": {"run": {"flowRunId": run}, "state": {"type": "RUNNING"}}}}
    await ask.client.post("/graphql", json=body, headers={"X-Request-ID": "request-7"})
    found = await flow_run(ask, run, "state { actor requestId }")
    assert found["state"] == {"actor": "anonymous", "requestId": "request-7"}


async def test_data_that_marks_a_missing_result_is_answered_and_not_stored(ask: Ask) -> None:
    run = await make_flow_run(ask)
    answer = await propose(ask, run, {"type": "COMPLETED", "data": {"type": "unpersisted"}})
    assert answer["state"]["data"] == {"type": "unpersisted"}
    assert (await flow_run(ask, run, "state { data }"))["state"]["data"] is None


async def test_a_cached_result_is_copied_with_its_data(ask: Ask) -> None:
    first, second = await make_task_run(ask, "0"), await make_task_run(ask, "1")
    result = {"type": "COMPLETED", "data": {"type": "reference", "key": "x"}, "details": {"cacheKey": "c"}}
    await propose(ask, first, result, task=True)
    answer = await propose(ask, second, {"type": "RUNNING", "details": {"cacheKey": "c"}}, task=True)
    assert (answer["status"], answer["state"]["name"], answer["state"]["data"]) == ("REJECT", "Cached", result["data"])

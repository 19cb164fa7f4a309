"""Decisions about shared rows: cached results, slots and their leases."""

from datetime import datetime

import pytest

from runstate.core.states import (
    State,
    awaiting_retry,
    cancelled,
    cancelling,
    completed,
    failed,
    paused,
    pending,
    running,
)
from runstate.documents.decisions import OrchestrationStatus
from runstate.documents.policies import CollisionStrategy, ConcurrencyOptions, TaskRunPolicy
from runstate.documents.states import StateType
from tests.core.factories import NOW, deployment, details, flow_run, in_seconds, lease, limit, task_run
from tests.core.store_in_memory import Memory

ACCEPT, REJECT = OrchestrationStatus.ACCEPT, OrchestrationStatus.REJECT
WAIT, ABORT = OrchestrationStatus.WAIT, OrchestrationStatus.ABORT


@pytest.fixture
def memory() -> Memory:
    """Return an empty store."""
    return Memory()


def test_a_result_is_reused_by_its_cache_key(memory: Memory) -> None:
    keyed = details(cache_key="k")
    first, second = task_run(), task_run()
    memory.have(first, second)
    memory.propose(first, running(details=keyed))
    memory.propose(first, completed(data={"type": "reference"}, details=keyed))
    said = memory.propose(second, running(details=keyed))

    cached = memory.state(second)
    assert (said.status, said.written, cached.type, cached.name) == (REJECT, None, StateType.COMPLETED, "Cached")
    assert (cached.copied_from, cached.persisted, cached.data) == (memory.state(first).id, True, None)
    assert [entry.cache_key for entry in memory.unit.new_cached] == ["k"]


@pytest.mark.parametrize(
    ("expires", "name"), [(in_seconds(9), "Cached"), (None, "Cached"), (in_seconds(-1), "Running")]
)
def test_only_the_newest_result_of_a_key_is_used_even_if_it_has_expired(
    memory: Memory, expires: datetime | None, name: str
) -> None:
    runs = [task_run() for _ in range(3)]
    memory.have(*runs)
    for run, message, expiration in zip(runs, "ab", (None, expires), strict=False):
        memory.propose(run, completed(message=message, details=details(cache_key="k", cache_expiration=expiration)))
    memory.propose(runs[2], running(details=details(cache_key="k")))

    assert memory.state(runs[2]).name == name
    assert memory.state(runs[2]).message == ("b" if name == "Cached" else None)


def test_a_result_with_a_long_key_is_written_and_not_reused(memory: Memory) -> None:
    run, keyed = task_run(), details(cache_key="k" * 2001)
    memory.have(run)
    said = memory.propose(run, completed(details=keyed))

    assert (said.status, memory.state(run).type) == (REJECT, StateType.COMPLETED)
    assert memory.unit.new_cached == []


def test_a_running_run_holds_a_slot_until_it_leaves_running(memory: Memory) -> None:
    run, other, limited = task_run(tags=["a"]), task_run(tags=["a", "b"]), limit(1, name="tag:a")
    memory.have(run, other, limited)

    assert memory.propose(run, running()).status is ACCEPT
    (held,) = memory.held(run)
    assert (held.limit_id, held.slots, held.run_id, held.expires, held.automatic) == (limited.id, 1, run.id, None, True)
    assert memory.propose(other, running()).status is WAIT
    assert memory.propose(run, cancelling()).status is ACCEPT
    assert memory.propose(other, running()).status is WAIT
    assert memory.propose(run, cancelled()).status is ACCEPT
    assert memory.held(run) == []
    assert memory.propose(other, running()).status is ACCEPT
    assert memory.unit.limits[limited.id].occupied == 1


@pytest.mark.parametrize("state", [completed(), awaiting_retry(NOW), pending(), paused(NOW)])
def test_every_state_that_runs_nothing_releases_the_slot(memory: Memory, state: State) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a")
    memory.have(run, limited)
    memory.propose(run, running())
    memory.propose(run, state)

    assert memory.held(run) == []
    assert memory.unit.limits[limited.id].occupied == 0


def test_a_retry_releases_the_slot_and_acquires_it_again(memory: Memory) -> None:
    run, limited = task_run(tags=["a"], policy=TaskRunPolicy(retries=1)), limit(1, name="tag:a")
    memory.have(run, limited)
    memory.propose(run, running())
    memory.propose(run, failed())

    assert memory.held(run) == []
    assert memory.propose(run, running()).status is ACCEPT
    assert len(memory.held(run)) == 1


@pytest.mark.parametrize("force", [False, True])
def test_force_acquires_no_slot_and_releases_held_slots(memory: Memory, *, force: bool) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a")
    memory.have(run, limited)
    memory.propose(run, running(), force=force)

    assert len(memory.held(run)) == (0 if force else 1)
    memory.propose(run, completed(), force=True)
    assert memory.unit.limits[limited.id].occupied == 0


def test_a_new_run_acquires_no_slot(memory: Memory) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a")
    memory.have(limited)
    memory.create(run, running())

    assert memory.held(run) == []


def test_slots_that_a_client_acquired_for_a_run_are_released_when_it_ends(memory: Memory) -> None:
    run, limited = task_run(), limit(3, occupied=2)
    mine = lease(limited, run_id=run.id, automatic=False)
    others = lease(limited, run_id=None, automatic=False, holder="another")
    memory.have(run, limited, mine, others)
    memory.propose(run, running())
    memory.propose(run, awaiting_retry(NOW))

    assert memory.held(run) == [mine]
    memory.propose(run, failed())
    assert memory.held(run) == []
    assert (list(memory.unit.leases), memory.unit.limits[limited.id].occupied) == ([others.id], 1)
    assert memory.unit.gone_leases == {mine.id}


def test_slots_that_a_client_acquired_for_a_run_do_not_count_as_its_own(memory: Memory) -> None:
    run, limited = task_run(tags=["a"]), limit(2, name="tag:a", occupied=1)
    mine = lease(limited, run_id=run.id, automatic=False)
    memory.have(run, limited, mine)
    memory.propose(run, running())

    assert [each.automatic for each in memory.held(run)] == [False, True]
    assert memory.unit.limits[limited.id].occupied == 2


def test_a_claimed_flow_run_holds_its_deployments_slot_from_pending_on(memory: Memory) -> None:
    limited = limit(1)
    deployed = deployment(limited)
    run, other = flow_run(deployment_id=deployed.id), flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run, other)
    memory.propose(run, pending())

    (held,) = memory.held(run)
    assert (held.expires, memory.state(run).details.deployment_concurrency_lease_id) == (in_seconds(300), held.id)
    assert memory.propose(other, pending()).status is REJECT
    assert memory.state(other).name == "AwaitingConcurrencySlot"
    memory.propose(run, running())
    assert [(each.id, each.expires) for each in memory.held(run)] == [(held.id, None)]
    assert memory.state(run).details.deployment_concurrency_lease_id == held.id
    memory.propose(run, completed())
    assert memory.held(run) == []
    assert memory.state(run).details.deployment_concurrency_lease_id is None


def test_a_claimed_run_whose_slot_has_decayed_starts_without_another(memory: Memory) -> None:
    limited = limit(1, slot_decay_per_second=0.5)
    deployed = deployment(limited)
    run, other = flow_run(deployment_id=deployed.id), flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run, other)
    memory.propose(run, pending())
    memory.wait(2)
    memory.unit.release(memory.held(run)[0], memory.now)
    memory.propose(other, pending())

    assert memory.propose(run, running()).status is ACCEPT
    assert memory.held(run) == []


def test_a_deployment_that_cancels_new_runs_cancels_a_run_without_a_slot(memory: Memory) -> None:
    limited = limit(1, occupied=1)
    options = ConcurrencyOptions(collision_strategy=CollisionStrategy.CANCEL_NEW)
    deployed = deployment(limited, concurrency_options=options)
    run = flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run)
    memory.propose(run, pending())

    assert memory.state(run).type is StateType.CANCELLED


@pytest.mark.parametrize(("state", "expires"), [(pending(), 60), (running(), None), (cancelling(), None)])
def test_a_lease_has_an_expiry_only_while_its_run_is_pending(
    memory: Memory, state: State, expires: float | None
) -> None:
    limited = limit(1)
    deployed = deployment(limited)
    run = flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run)
    memory.propose(run, pending())
    memory.propose(run, state)
    (taken,) = memory.held(run)
    memory.unit.renew(taken, in_seconds(60), NOW)

    assert [each.expires for each in memory.held(run)] == [None if expires is None else in_seconds(expires)]


def test_a_lease_of_a_rate_limit_is_not_renewed(memory: Memory) -> None:
    limited = limit(1, slot_decay_per_second=0.1)
    deployed = deployment(limited)
    run = flow_run(deployment_id=deployed.id)
    memory.have(limited, deployed, run)
    memory.propose(run, pending())
    memory.wait(1)
    memory.propose(run, running())

    assert [each.expires for each in memory.held(run)] == [in_seconds(10)]
    memory.propose(run, completed())
    assert memory.unit.limits[limited.id].drained == in_seconds(1)


def test_decay_is_counted_from_the_time_that_the_rules_saw(memory: Memory) -> None:
    run, limited = task_run(tags=["a"]), limit(1, name="tag:a", slot_decay_per_second=1, drained=in_seconds(0.5))
    memory.have(run, limited)
    memory.wait(1)
    memory.propose(run, pending())
    memory.wait(-1)

    assert memory.propose(run, running()).status is ACCEPT
    assert memory.unit.limits[limited.id].drained == in_seconds(2)

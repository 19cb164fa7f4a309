"""Concurrency limits: a run that enters a state acquires slots. Otherwise it waits, is rescheduled or is cancelled."""

from datetime import datetime, timedelta
from typing import Any

from runstate.core.proposal import (
    ANY,
    Abort,
    Acquire,
    Amend,
    Proposal,
    Reject,
    Slot,
    Wait,
    rule,
)
from runstate.core.slots import capacity, retry_delay, seconds_until_room
from runstate.core.states import awaiting_concurrency_slot, cancelled
from runstate.documents.policies import CollisionStrategy
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun

PENDING, RUNNING = frozenset({StateType.PENDING}), frozenset({StateType.RUNNING})
HOLDING = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
"""State types in which a flow run holds a slot of its deployment."""
HOLDING_TASK = frozenset({StateType.RUNNING, StateType.CANCELLING})
"""State types in which a task run holds slots of its tags."""

ENQUEUED_SECONDS = 30
"""Delay after which an enqueued run is scheduled again."""
GRACE_SECONDS = 300
"""Default time for which a claimed run holds its slot before it starts."""
NO_SLOTS = "The limit {} has no slots."
FULL = "The limit {} is full."


@rule(leaving=HOLDING, entering=HOLDING)
def carry_lease(proposal: Proposal[FlowRun]) -> Amend | None:
    """A flow run that holds a slot of its deployment keeps the id of the lease in the details of its states."""
    if proposal.initial is None or proposal.initial.details.deployment_concurrency_lease_id is None:
        return None
    lease_id = proposal.initial.details.deployment_concurrency_lease_id
    return Amend(state=proposal.proposed.with_details(deployment_concurrency_lease_id=lease_id))


@rule(leaving=ANY - HOLDING, entering=PENDING)
def take_deployment_slot(proposal: Proposal[FlowRun]) -> Abort | Reject | Amend | None:
    """A claimed flow run acquires a slot of its deployment. If none is free, the run is rescheduled or cancelled."""
    slot = _wanted(proposal)
    if slot is None:
        return None
    # A limit of zero never has a free slot, so waiting would be useless.
    if slot.limit.limit == 0:
        return Abort(reason=NO_SLOTS.format(slot.limit.name))
    # A worker that waited here would hold a run that others could start later; so the run goes back.
    if seconds_until_room(slot.limit, 1, proposal.now) > 0:
        return _collided(proposal, slot)
    return _acquires(proposal, slot, proposal.now + timedelta(seconds=_grace(proposal)))


@rule(leaving=PENDING, entering=RUNNING)
def keep_deployment_slot(proposal: Proposal[FlowRun]) -> Abort | Reject | Wait | Amend | None:
    """A claimed run keeps its slot when it starts. If the lease expired, it acquires another slot or is cancelled."""
    slot = _wanted(proposal)
    claimed = proposal.initial is not None and proposal.initial.details.deployment_concurrency_lease_id is not None
    # A rate limit counts claims, and the claim has acquired its slot already.
    if slot is None or (claimed and slot.limit.slot_decay_per_second > 0):
        return None
    if not claimed or seconds_until_room(slot.limit, 1, proposal.now) == 0:
        return _enter_deployment(proposal)
    message = "The slot of the deployment expired while the run was pending, and no other slot is free."
    return Reject(reason=message, instead=cancelled(message=message))


@rule(leaving=ANY - HOLDING, entering=RUNNING)
def take_deployment_slot_again(proposal: Proposal[FlowRun]) -> Abort | Wait | Amend | None:
    """A flow run that enters RUNNING without a claim, after a retry or a pause, acquires a slot or waits for one."""
    return _enter_deployment(proposal)


@rule(leaving=ANY, entering=RUNNING)
def take_tag_slots(proposal: Proposal[TaskRun]) -> Abort | Wait | Amend | None:
    """A task run acquires a slot of the limit of each of its tags. If one limit is full, it acquires none and waits."""
    return _enter(proposal)


@rule(leaving={StateType.SCHEDULED}, entering={StateType.SCHEDULED})
def cancel_late_run_without_slot(proposal: Proposal[FlowRun]) -> Reject | None:
    """A run that becomes Late is CANCELLED if its deployment is full and its collision strategy is CANCEL_NEW."""
    options = proposal.concurrency
    slot = _wanted(proposal)
    if slot is None or proposal.proposed.name != "Late" or options is None:
        return None
    full = seconds_until_room(slot.limit, 1, proposal.now) > 0
    if options.collision_strategy is not CollisionStrategy.CANCEL_NEW or not full:
        return None
    return _collided(proposal, slot)


def _wanted(proposal: Proposal[Any]) -> Slot | None:
    # A run keeps the slot that it holds, even if the limit was lowered or switched off since.
    return next((slot for slot in proposal.slots if slot.held is None and slot.limit.active), None)


def _enter(proposal: Proposal[Any]) -> Abort | Wait | Amend | None:
    """Acquire all slots that the run does not hold yet, or none."""
    wanted = [slot for slot in proposal.slots if slot.held is None and slot.limit.active]
    # Waiting for a limit that never has a slot would never end.
    closed = next((slot for slot in wanted if capacity(slot.limit) < 1), None)
    if closed:
        return Abort(reason=NO_SLOTS.format(closed.limit.name))
    full = [slot for slot in wanted if seconds_until_room(slot.limit, 1, proposal.now) > 0]
    if full:
        names = ", ".join(slot.limit.name for slot in full)
        return Wait(
            reason=FULL.format(names),
            # A retry needs a slot of every limit at once.
            seconds=max(retry_delay(each.limit, 1, proposal.now, proposal.draw, _attempts(proposal)) for each in full),
            limits=tuple(each.limit.id for each in full),
        )
    return Amend(effects=tuple(Acquire(slot, None) for slot in wanted)) if wanted else None


def _attempts(proposal: Proposal[Any]) -> int:
    """Return how often the run was told in a row that limits are full."""
    last = proposal.run.last_answer
    # Each new state clears the answer, so the delay grows only while the run keeps waiting.
    return last.attempts if last is not None and last.limit_ids else 0


def _enter_deployment(proposal: Proposal[FlowRun]) -> Abort | Wait | Amend | None:
    """Acquire a slot of the deployment without an expiry."""
    verdict, slot = _enter(proposal), _wanted(proposal)
    return _acquires(proposal, slot, None) if isinstance(verdict, Amend) and slot else verdict


def _grace(proposal: Proposal[FlowRun]) -> float:
    seconds = proposal.concurrency.grace_period_seconds if proposal.concurrency else None
    return GRACE_SECONDS if seconds is None else seconds


def _acquires(proposal: Proposal[FlowRun], slot: Slot, expires: datetime | None) -> Amend:
    # Clients read the id of the lease from the details of the state.
    state = proposal.proposed.with_details(deployment_concurrency_lease_id=slot.new_lease_id)
    return Amend(state=state, effects=(Acquire(slot, expires),))


def _collided(proposal: Proposal[FlowRun], slot: Slot) -> Reject:
    reason = FULL.format(slot.limit.name)
    options = proposal.concurrency
    if options and options.collision_strategy is CollisionStrategy.CANCEL_NEW:
        return Reject(reason=reason, instead=cancelled(message="The concurrency limit of the deployment was reached."))
    when = proposal.now + timedelta(seconds=ENQUEUED_SECONDS)
    instead = awaiting_concurrency_slot(proposal.now, when)
    return Reject(reason=reason, instead=instead, limits=(slot.limit.id,))

"""Slots of limits: taken on entering; who finds none waits, is scheduled again or is cancelled."""

from datetime import datetime, timedelta
from typing import Any

from runstate.core.proposal import (
    ANY,
    Abort,
    Amend,
    Proposal,
    Reject,
    Slot,
    Take,
    Wait,
    rule,
)
from runstate.core.slots import retry_delay, seconds_until_room
from runstate.core.states import awaiting_concurrency_slot, cancelled
from runstate.documents.policies import CollisionStrategy
from runstate.documents.states import StateType
from runstate.rows import FlowRun, TaskRun

PENDING, RUNNING = frozenset({StateType.PENDING}), frozenset({StateType.RUNNING})
HOLDING = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
"""The types in which a flow run keeps its deployment's slot."""
HOLDING_TASK = frozenset({StateType.RUNNING, StateType.CANCELLING})
"""The types in which a task run keeps the slots of its tags."""

ENQUEUED_SECONDS = 30
GRACE_SECONDS = 300
NO_SLOTS = "The limit {} has no slots at all."
FULL = "The limit {} is full."


@rule(leaving=HOLDING, entering=HOLDING)
def carry_lease(proposal: Proposal[FlowRun]) -> Amend | None:
    """A flow run that keeps its deployment's slot keeps the id of the lease in its state's details."""
    if proposal.initial is None or proposal.initial.details.deployment_concurrency_lease_id is None:
        return None
    lease_id = proposal.initial.details.deployment_concurrency_lease_id
    return Amend(state=proposal.proposed.with_details(deployment_concurrency_lease_id=lease_id))


@rule(leaving=ANY - HOLDING, entering=PENDING)
def take_deployment_slot(proposal: Proposal[FlowRun]) -> Abort | Reject | Amend | None:
    """A flow run takes a slot of its deployment when it is claimed; without one it is scheduled again or cancelled."""
    slot = _wanted(proposal)
    if slot is None:
        return None
    if slot.limit.limit == 0:
        return Abort(reason=NO_SLOTS.format(slot.limit.name))
    if seconds_until_room(slot.limit, 1, proposal.now) > 0:
        return _collided(proposal, slot)
    return _takes(proposal, slot, proposal.now + timedelta(seconds=_grace(proposal)))


@rule(leaving=PENDING, entering=RUNNING)
def keep_deployment_slot(proposal: Proposal[FlowRun]) -> Abort | Reject | Wait | Amend | None:
    """A claimed run that starts keeps its slot; one that lost it, unless by decay, takes another or is cancelled."""
    slot = _wanted(proposal)
    claimed = proposal.initial is not None and proposal.initial.details.deployment_concurrency_lease_id is not None
    if slot is None or (claimed and slot.limit.slot_decay_per_second > 0):
        return None
    if not claimed or seconds_until_room(slot.limit, 1, proposal.now) == 0:
        return _enter_deployment(proposal)
    message = "The deployment's slot was lost while the run was pending, and no other is free."
    return Reject(reason=message, instead=cancelled(message=message))


@rule(leaving=ANY - HOLDING, entering=RUNNING)
def take_deployment_slot_again(proposal: Proposal[FlowRun]) -> Abort | Wait | Amend | None:
    """A flow run that enters RUNNING unclaimed, after a retry or a pause, takes a slot or waits for one."""
    return _enter_deployment(proposal)


@rule(leaving=ANY, entering=RUNNING)
def take_tag_slots(proposal: Proposal[TaskRun]) -> Abort | Wait | Amend | None:
    """A task run takes a slot of the limit of each of its tags, all or none; without one it waits."""
    return _enter(proposal)


@rule(leaving={StateType.SCHEDULED}, entering={StateType.SCHEDULED})
def cancel_late_run_without_slot(proposal: Proposal[FlowRun]) -> Reject | None:
    """A run that becomes Late is cancelled when its deployment cancels new runs and is full."""
    options = proposal.concurrency
    slot = _wanted(proposal)
    if slot is None or proposal.proposed.name != "Late" or options is None:
        return None
    full = seconds_until_room(slot.limit, 1, proposal.now) > 0
    if options.collision_strategy is not CollisionStrategy.CANCEL_NEW or not full:
        return None
    return _collided(proposal, slot)


def _wanted(proposal: Proposal[Any]) -> Slot | None:
    return next((slot for slot in proposal.slots if slot.held is None and slot.limit.active), None)


def _enter(proposal: Proposal[Any]) -> Abort | Wait | Amend | None:
    """All slots that the run does not hold yet, or none of them."""
    wanted = [slot for slot in proposal.slots if slot.held is None and slot.limit.active]
    closed = next((slot for slot in wanted if slot.limit.limit == 0), None)
    if closed:
        return Abort(reason=NO_SLOTS.format(closed.limit.name))
    full = [slot for slot in wanted if seconds_until_room(slot.limit, 1, proposal.now) > 0]
    if full:
        names = ", ".join(slot.limit.name for slot in full)
        return Wait(
            reason=FULL.format(names),
            seconds=max(retry_delay(slot.limit, 1, proposal.now, proposal.draw) for slot in full),
        )
    return Amend(effects=tuple(Take(slot, None) for slot in wanted)) if wanted else None


def _enter_deployment(proposal: Proposal[FlowRun]) -> Abort | Wait | Amend | None:
    """The deployment's slot, until the run leaves it."""
    said, slot = _enter(proposal), _wanted(proposal)
    return _takes(proposal, slot, None) if isinstance(said, Amend) and slot else said


def _grace(proposal: Proposal[FlowRun]) -> float:
    given = proposal.concurrency.grace_period_seconds if proposal.concurrency else None
    return GRACE_SECONDS if given is None else given


def _takes(proposal: Proposal[FlowRun], slot: Slot, expires: datetime | None) -> Amend:
    state = proposal.proposed.with_details(deployment_concurrency_lease_id=slot.new_lease_id)
    return Amend(state=state, effects=(Take(slot, expires),))


def _collided(proposal: Proposal[FlowRun], slot: Slot) -> Reject:
    reason = FULL.format(slot.limit.name)
    options = proposal.concurrency
    if options and options.collision_strategy is CollisionStrategy.CANCEL_NEW:
        return Reject(reason=reason, instead=cancelled(message="The deployment's concurrency limit was reached."))
    when = proposal.now + timedelta(seconds=ENQUEUED_SECONDS)
    return Reject(reason=reason, instead=awaiting_concurrency_slot(proposal.now, when))

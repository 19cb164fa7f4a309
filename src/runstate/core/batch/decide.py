"""Decisions on requests, one after another in memory: pure functions of the unit of work and the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from runstate.core.batch.explaining import explained, unanswered
from runstate.core.batch.recording import record
from runstate.core.batch.requests import (
    Answer,
    Created,
    CreateRun,
    Outcome,
    ProposeState,
    Recorded,
    RecordState,
    Request,
)
from runstate.core.batch.unit_of_work import UnitOfWork
from runstate.core.bookkeeping import enter, entry_time, stamped
from runstate.core.policies import BACKGROUND_TASK, CLAIMED, CORE_FLOW, CORE_TASK, MINIMAL_FLOW, MINIMAL_TASK
from runstate.core.proposal import (
    Decision,
    Proposal,
    R,
    Rule,
    RuleOutcome,
    RuleVerdict,
    decide,
)
from runstate.core.rules.concurrency import HOLDING, HOLDING_TASK
from runstate.core.states import State
from runstate.documents.access import is_service
from runstate.documents.decisions import LastAnswer, OrchestrationStatus, is_repeated
from runstate.documents.states import MONITORED_TYPES, Json, RunKind
from runstate.errors import IdempotencyConflict, NotFound, VersionConflict
from runstate.rows import FlowRun, FlowRunInput, FlowRunState, ProposalAnswer, TaskRun, TaskRunState


@dataclass(frozen=True, slots=True)
class Environment:
    """The time, random numbers and new ids. They are passed in, so that tests can repeat a decision exactly."""

    now: datetime
    draw: Callable[[], float]
    new_id: Callable[[], UUID]


def decide_request(request: Request, unit: UnitOfWork, environment: Environment) -> Outcome:
    """Return the outcome of a request, and record its changes in the unit."""
    outcome = _decided(request, unit, environment)
    # A proposal of a service says nothing about the client.
    if not is_service(request.actor):
        _hear(request, unit)
    return outcome


def _hear(request: Request, unit: UnitOfWork) -> None:
    """Note that a client has made a request for a run, which is a sign of life for its flow run, too."""
    if isinstance(request, ProposeState) and request.dry_run:
        return
    run = unit.runs.get(request.run_id if isinstance(request, ProposeState) else request.run.id)
    # A worker that was cut off says nothing about the run.
    if isinstance(request, ProposeState) and isinstance(run, FlowRun) and request.claim_id not in (None, run.claim_id):
        return
    for each in (run, unit.runs.get(run.flow_run_id) if isinstance(run, TaskRun) and run.flow_run_id else None):
        if each is not None and each.heartbeat_seconds is not None and each.state_type in MONITORED_TYPES:
            # A heartbeat belongs to a version: a run that enters RUNNING again gets its full time.
            unit.heard[each.id] = each.version


def _decided(request: Request, unit: UnitOfWork, environment: Environment) -> Outcome:
    if isinstance(request, CreateRun):
        return _create(request, unit, environment)
    if isinstance(request, RecordState):
        return _record(request, unit, environment)
    run = unit.runs.get(request.run_id)
    # A run of this batch exists for clients once its creation is decided, which removes it from `created`.
    if run is None or run.id in unit.created or _kind(run) is not request.kind:
        return NotFound(request.run_id)
    # Checked before the version, which the stored proposal itself has increased.
    replayed = _replayed(request, unit)
    if replayed is not None:
        return replayed
    if request.expected_version not in (None, run.version):
        return VersionConflict(run.version)
    return _propose(request, run, unit, environment)


def _create(request: CreateRun, unit: UnitOfWork, environment: Environment) -> Outcome:
    run = request.run
    kind = _kind(run)
    if run.id in unit.dangling:
        return NotFound(unit.dangling[run.id])
    if run.id not in unit.created:
        return Created(kind=kind, run_id=unit.existing[run.id], created=False)
    # The same creation later in the batch must find this run, and not enter the first state again.
    unit.created.discard(run.id)
    unit.existing[run.id] = run.id
    _propose(_first(request, kind), _with_cause(run, unit), unit, environment)
    return Created(kind=kind, run_id=run.id, created=True, run=unit.runs[run.id].replace(updated=environment.now))


def _with_cause(run: FlowRun | TaskRun, unit: UnitOfWork) -> FlowRun | TaskRun:
    """Return a run; a subflow run with the firing that led to its parent."""
    task_run_id = run.parent_task_run_id if isinstance(run, FlowRun) else None
    parent = unit.flow_run_refs.get(task_run_id) if task_run_id else None
    return run.replace(cause=parent.cause) if parent and parent.cause else run


def _record(request: RecordState, unit: UnitOfWork, environment: Environment) -> Outcome:
    outcome = record(request, unit, environment.new_id)
    if isinstance(outcome, Recorded) and outcome.written and not outcome.late:
        # Slots that rules acquired for the run; those that its client acquired are released by the client.
        _keep_or_release(unit.runs[outcome.run_id], unit.states[outcome.run_id], unit, environment.now)
    return outcome


def _first(request: CreateRun, kind: RunKind) -> ProposeState:
    return ProposeState(
        kind=kind,
        run_id=request.run.id,
        state=request.state,
        force=True,
        actor=request.actor,
        request_id=request.request_id,
    )


def references(run: FlowRun | TaskRun) -> list[UUID]:
    """Return the ids of the rows that a new run refers to. They must exist."""
    if isinstance(run, TaskRun):
        return [run.flow_run_id] if run.flow_run_id else []
    return [each for each in (run.flow_id, run.deployment_id, run.work_queue_id, run.parent_task_run_id) if each]


def _kind(run: FlowRun | TaskRun) -> RunKind:
    return RunKind.TASK_RUN if isinstance(run, TaskRun) else RunKind.FLOW_RUN


def _replayed(request: ProposeState, unit: UnitOfWork) -> Answer | IdempotencyConflict | None:
    if request.idempotency_key is None:
        return None
    known = unit.answers.get((request.run_id, request.idempotency_key))
    if known is None:
        return None
    # The stored answer belongs to another proposal, so it must not be returned for this one.
    if known.fingerprint != request.fingerprint:
        return IdempotencyConflict()
    stored = known.answer
    return Answer(
        status=OrchestrationStatus[stored["status"]],
        kind=request.kind,
        run_id=request.run_id,
        state_id=known.state_id,
        reason=stored["reason"],
        rule=stored["rule"],
        considered=tuple(
            RuleOutcome(rule, RuleVerdict[verdict], reason) for rule, verdict, reason in stored["considered"]
        ),
        replayed=True,
    )


def _propose(request: ProposeState, run: Any, unit: UnitOfWork, environment: Environment) -> Answer:
    initial = unit.states.get(run.id)
    state = request.state.due(environment.now)
    proposal = _proposal(run, initial, state, unit, environment, request)
    decision = decide(proposal, policy_for(request, run))
    # Nothing is recorded in the unit before this line, so a dry run writes nothing.
    if request.dry_run:
        would = stamped(decision.state, run, environment.now) if decision.state else None
        return _answer(request, decision, initial, proposed=would)
    entered = _apply(decision, initial, request, unit, environment)
    answer = _answer(request, decision, entered or initial, written=snapshot(run.id, entered, request))
    # A rejection can write another state, in which the run does not use the input.
    if entered and request.run_input_to_store is not None and decision.status is OrchestrationStatus.ACCEPT:
        unit.new_inputs.append(_run_input(request.run_input_to_store, run.id, environment))
    if entered and request.lease is not None and decision.status is OrchestrationStatus.ACCEPT:
        unit.claim(run.id, request.lease, environment.new_id(), environment.now)
    # An answer without a new state is not stored: the same proposal can succeed later.
    if entered and request.idempotency_key is not None:
        _store_answer(request, answer, entered, unit, environment)
    return answer


def _run_input(given: tuple[str, Json], flow_run_id: UUID, environment: Environment) -> FlowRunInput:
    key, value = given
    row = {"id": environment.new_id(), "created": environment.now, "updated": environment.now, "sender": None}
    return FlowRunInput.of({**row, "flow_run_id": flow_run_id, "key": key, "value": value})


def policy_for(request: ProposeState, run: FlowRun | TaskRun) -> tuple[Rule[Any], ...]:
    """Return the rules that decide a proposal. That of claims applies to forced proposals, too."""
    if request.claim_id is not None:
        return (*CLAIMED, *_policy(request, run))
    return _policy(request, run)


def _policy(request: ProposeState, run: FlowRun | TaskRun) -> tuple[Rule[Any], ...]:
    if request.policy is not None:
        return request.policy
    if isinstance(run, FlowRun):
        return MINIMAL_FLOW if request.force else CORE_FLOW
    # `force` comes before `deferred`: a forced proposal skips all rules that guard.
    if request.force:
        return MINIMAL_TASK
    return BACKGROUND_TASK if request.state.details.deferred else CORE_TASK


def _proposal(
    run: R, initial: State | None, state: State, unit: UnitOfWork, environment: Environment, request: ProposeState
) -> Proposal[R]:
    # Times of a run's states never decrease, although the clocks of servers differ.
    now = max(environment.now, run.state_timestamp) if run.state_timestamp else environment.now
    return Proposal(
        run=run,
        initial=initial,
        proposed=state,
        now=now,
        # Rules are pure, so random numbers and ids are drawn here.
        draw=environment.draw(),
        slots=unit.slots_of(run, environment.new_id) if unit.limits else (),
        pause_key=environment.new_id() if state.is_paused else None,
        claim_id=request.claim_id,
        quirks=request.quirks,
        **_surroundings(run, state, unit),
    )


def _surroundings(run: FlowRun | TaskRun, state: State, unit: UnitOfWork) -> dict[str, Any]:
    """Return the further members of a proposal that depend on the kind of run."""
    if isinstance(run, FlowRun):
        deployment = unit.deployments.get(run.deployment_id) if run.deployment_id else None
        return {"concurrency": deployment.concurrency_options if deployment else None}
    parent = unit.runs.get(run.flow_run_id) if run.flow_run_id else None
    key = state.details.cache_key
    return {
        "flow_run": parent,
        "flow_state": unit.states.get(parent.id) if parent else None,
        "cached": unit.cached.get(key) if key else None,
    }


def _apply(
    decision: Decision[Any], initial: State | None, request: ProposeState, unit: UnitOfWork, environment: Environment
) -> State | None:
    """Enter the state of a decision and apply its effects; without a state, record the refusal."""
    last = decision.run.last_answer
    answer = unanswered(decision, request, last, environment.now)
    if decision.state is None:
        _refuse(decision, request, answer, unit, environment)
        return None
    # All that the entry adds to the state is set at once: copying a state costs more than any of it.
    stamp: dict[str, Any] = {
        "id": environment.new_id(),
        "timestamp": entry_time(decision.run, environment.now),
        "decision": explained(decision, request),
    }
    if made := decision.state.artifact:
        stamp["artifact"] = replace(made, id=environment.new_id())
    run, entered = enter(decision.run, initial, decision.state, quirks=request.quirks, **stamp)
    # The bookkeeping must see the old policy: the reference counts a resumption in the process as a further run.
    run = run.replace(**decision.after_bookkeeping) if decision.after_bookkeeping else run
    run = run.replace(cause=request.cause) if request.cause else run
    # Slots are acquired at the time at which the rule found room, or a clock that goes back would exceed the limit.
    at = entered.timestamp or environment.now
    unit.enter(run, entered, request.actor, request.request_id)
    if isinstance(run, FlowRun) and decision.run.claim_id != run.claim_id:
        unit.gone_claims.add(decision.run.claim_id)
    if last or answer:
        unit.keep_answer(run, last, answer, environment.new_id)
    unit.apply(decision.effects, run, entered, at, environment.new_id)
    _keep_or_release(run, entered, unit, at)
    if isinstance(run, FlowRun) and run.parent_task_run_id in unit.runs:
        _mirror(run, entered, request, unit, environment)
    return entered


def _refuse(
    decision: Decision[Any],
    request: ProposeState,
    answer: LastAnswer | None,
    unit: UnitOfWork,
    environment: Environment,
) -> None:
    """Set the columns that a rule sets without a state, and keep the answer unless it repeats the last one."""
    run = decision.run
    # Only `proposeState` reproduces this side effect of the reference.
    if decision.after_bookkeeping and request.quirks:
        run = run.replace(**decision.after_bookkeeping)
        unit.change_run(run)
    # A client that asks more often causes no more writes.
    if answer and not is_repeated(answer, run.last_answer):
        unit.keep_answer(run, run.last_answer, answer, environment.new_id)


def _keep_or_release(run: FlowRun | TaskRun, state: State, unit: UnitOfWork, now: datetime) -> None:
    """Release slots: those of the state when the run leaves the types that hold them, and all when it ends.

    The grace period of a claim ends with PENDING: after that, the run holds its slot until it leaves those types.
    """
    keeps = state.type in (HOLDING_TASK if isinstance(run, TaskRun) else HOLDING)
    for lease in unit.held_by(run.id):
        # The end of a run also releases slots that its client acquired: a crash leaves no orphaned slots.
        if not keeps and (lease.automatic or state.is_final):
            # Read again from the unit: with decay, an earlier release has advanced this lease.
            unit.release(unit.leases[lease.id], now)
        elif keeps and lease.automatic and lease.expires is not None and not state.is_pending:
            unit.renew(lease, None, now)


def _mirror(run: FlowRun, state: State, request: ProposeState, unit: UnitOfWork, environment: Environment) -> None:
    """Enter the same state on the task run that represents a subflow run in its parent, with its own version.

    This is a separate request, because idempotency key, expected version and run input apply to the subflow run only.
    """
    parent = unit.runs[run.parent_task_run_id] if run.parent_task_run_id else None
    if parent is None:
        return
    mirrored = ProposeState(
        kind=RunKind.TASK_RUN,
        run_id=parent.id,
        state=state.fresh_copy().with_details(child_flow_run_id=run.id),
        force=True,
        quirks=request.quirks,
        actor=request.actor,
        request_id=request.request_id,
    )
    _propose(mirrored, parent, unit, environment)


def _answer(request: ProposeState, decision: Decision[R], state: State | None, **more: Any) -> Answer:
    return Answer(
        status=decision.status,
        kind=request.kind,
        run_id=request.run_id,
        state_id=state.id if state else None,
        reason=decision.reason,
        rule=decision.rule,
        retry_after_seconds=decision.retry_after_seconds,
        considered=decision.considered,
        **more,
    )


def snapshot(run_id: UUID, state: State | None, request: ProposeState) -> FlowRunState | TaskRunState | None:
    """Return the entered state as a row; None if its data is copied inside the database."""
    if state is None or state.copied_from is not None:
        return None
    row = FlowRunState if request.kind is RunKind.FLOW_RUN else TaskRunState
    return row.of(state_columns(run_id, state, request.actor, request.request_id))


def state_columns(run_id: UUID, state: State, actor: str, request_id: str | None) -> dict[str, Any]:
    """Return the columns of an entered state."""
    return {
        "id": state.id,
        "created": state.timestamp,
        "updated": state.timestamp,
        "run_id": run_id,
        "type": state.type,
        "name": state.name,
        "message": state.message,
        "timestamp": state.timestamp,
        "version": state.version,
        "data": state.data,
        "details": state.details,
        "persisted": state.persisted,
        "actor": actor,
        "request_id": request_id,
        "decision_record": state.decision,
        "late": state.late,
        "artifact_id": state.artifact.id if state.artifact else None,
    }


def _store_answer(
    request: ProposeState, answer: Answer, state: State, unit: UnitOfWork, environment: Environment
) -> None:
    considered = [[each.rule, each.verdict.value, each.reason] for each in answer.considered]
    stored = {"status": answer.status.value, "reason": answer.reason, "rule": answer.rule, "considered": considered}
    row = ProposalAnswer.of(
        {
            "run_id": request.run_id,
            "key": request.idempotency_key,
            "fingerprint": request.fingerprint,
            "created": environment.now,
            "answer": stored,
            "state_id": state.id,
        }
    )
    # A repetition later in the same batch finds the answer here.
    unit.answers[(row.run_id, row.key)] = row
    unit.new_answers.append(row)

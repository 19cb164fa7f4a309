"""The unit of work of a batch: loaded rows, and the changes to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from runstate.core.batch.requests import Lease
from runstate.core.proposal import Acquire, CacheResult, Effect, R, Slot
from runstate.core.slots import advanced, after_acquire, after_release, saved_time
from runstate.core.states import State
from runstate.database.queries.orchestration import FlowRunRefs, digest
from runstate.documents.decisions import LastAnswer
from runstate.documents.states import RunKind
from runstate.rows import (
    CacheEntry,
    ConcurrencyLease,
    ConcurrencyLimit,
    ConcurrencyWaiter,
    Deployment,
    FlowRun,
    FlowRunInput,
    ProposalAnswer,
    RunClaim,
    TaskRun,
)


@dataclass(frozen=True, slots=True)
class Entered:
    """The entry of a run into a state."""

    run: FlowRun | TaskRun
    left: State | None
    state: State
    actor: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Advance:
    """An earlier expiry of the leases of a limit with decay, behind a lease that was released."""

    limit_id: UUID
    after: datetime
    """Expiry of the released lease; only leases that expire later are changed."""
    by: timedelta
    """Time by which they expire sooner."""


@dataclass(slots=True)
class UnitOfWork:
    """Loaded rows by id, and the changes to write. Its methods keep both consistent."""

    runs: dict[UUID, FlowRun | TaskRun] = field(default_factory=dict)
    states: dict[UUID, State] = field(default_factory=dict)
    """Current states by run id."""
    flow_run_refs: dict[UUID, FlowRunRefs] = field(default_factory=dict)
    """References of the flow runs of task runs, by task run id."""
    deployments: dict[UUID, Deployment] = field(default_factory=dict)
    has_limits: bool = False
    """Whether any concurrency limit may exist."""
    limits: dict[UUID, ConcurrencyLimit] = field(default_factory=dict)
    limit_ids: dict[str, UUID] = field(default_factory=dict)
    """Ids of the limits by name."""
    leases: dict[UUID, ConcurrencyLease] = field(default_factory=dict)
    """Leases that the runs of the batch hold, or that a command names; not all leases of their limits."""
    leases_of: dict[UUID, list[UUID]] = field(default_factory=dict)
    """Ids of the leases by id of the run that holds them."""
    cached: dict[str, State] = field(default_factory=dict)
    answers: dict[tuple[UUID, str], ProposalAnswer] = field(default_factory=dict)
    created: set[UUID] = field(default_factory=set)
    """Ids of the runs that this batch inserted and that have no state yet."""
    existing: dict[UUID, UUID] = field(default_factory=dict)
    """Ids of existing runs, by id of the run to create that has the same unique key."""
    dangling: dict[UUID, UUID] = field(default_factory=dict)
    """Unknown ids, by id of the run to create that refers to them."""

    recorded: set[UUID] = field(default_factory=set)
    """Ids of reported states that are stored, or that this batch writes."""

    transitions: list[Entered] = field(default_factory=list)
    late: list[Entered] = field(default_factory=list)
    """Reported states that the runs did not enter, because they were in newer ones."""
    reported_columns: dict[UUID, set[str]] = field(default_factory=dict)
    """Columns that clients reported with states, by id of the run."""
    changed_runs: set[UUID] = field(default_factory=set)
    changed_limits: set[UUID] = field(default_factory=set)
    new_leases: set[UUID] = field(default_factory=set)
    changed_leases: set[UUID] = field(default_factory=set)
    gone_leases: set[UUID] = field(default_factory=set)
    advances: list[Advance] = field(default_factory=list)
    """Changes of stored leases, including those that were not loaded, in order."""
    new_cached: list[CacheEntry] = field(default_factory=list)
    new_answers: list[ProposalAnswer] = field(default_factory=list)
    new_inputs: list[FlowRunInput] = field(default_factory=list)
    new_claims: list[RunClaim] = field(default_factory=list)
    gone_claims: set[UUID] = field(default_factory=set)
    waiters: dict[tuple[UUID, UUID], ConcurrencyWaiter] = field(default_factory=dict)
    """Runs that wait, by id of the run and of the limit."""
    gone_waiters: set[tuple[UUID, UUID]] = field(default_factory=set)
    heard: dict[UUID, int] = field(default_factory=dict)
    """Versions of the monitored runs whose clients made the requests, by id of the run."""
    has_released: bool = False
    """Whether slots were released."""

    def add_limit(self, limit: ConcurrencyLimit) -> None:
        """Add a loaded limit."""
        self.limits[limit.id] = limit
        self.limit_ids[limit.name] = limit.id

    def add_lease(self, lease: ConcurrencyLease) -> None:
        """Add a loaded or new lease."""
        self.leases[lease.id] = lease
        if lease.run_id is not None:
            self.leases_of.setdefault(lease.run_id, []).append(lease.id)

    def slots_of(self, run: FlowRun | TaskRun, new_id: Callable[[], UUID]) -> tuple[Slot, ...]:
        """Return the limits that apply to a run, each with the lease that the run holds."""
        # Slots that a client acquired for the run do not count for its states.
        held = {lease.limit_id: lease for lease in self.held_by(run.id) if lease.automatic}
        return tuple(Slot(limit, held.get(limit.id), new_id()) for limit in self._limits_of(run))

    def _limits_of(self, run: FlowRun | TaskRun) -> list[ConcurrencyLimit]:
        if isinstance(run, TaskRun):
            names = {f"tag:{tag}" for tag in run.tags}
            # Sets of strings are ordered differently in each process, but decisions must be repeatable.
            return [
                self.limits[each] for each in sorted(self.limit_ids[name] for name in names & self.limit_ids.keys())
            ]
        deployment = self.deployments.get(run.deployment_id) if run.deployment_id else None
        limit_id = deployment.concurrency_limit_id if deployment else None
        return [self.limits[limit_id]] if limit_id in self.limits else []

    def change_run(self, run: R) -> None:
        """Record changed columns of a run."""
        self.runs[run.id] = run
        self.changed_runs.add(run.id)

    def keep_answer(
        self, run: R, last: LastAnswer | None, answer: LastAnswer | None, new_id: Callable[[], UUID]
    ) -> None:
        """Record the last answer to a run in place of another one, and the limits that the run waits for."""
        self.change_run(run.replace(last_answer=answer))
        waits_for = dict.fromkeys(answer.limit_ids, answer.at) if answer else {}
        for limit_id in last.limit_ids if last else ():
            if limit_id not in waits_for:
                self.waiters.pop((run.id, limit_id), None)
                self.gone_waiters.add((run.id, limit_id))
        for limit_id, at in waits_for.items():
            # A run can stop waiting for a limit and wait again in the same batch.
            self.gone_waiters.discard((run.id, limit_id))
            self.waiters[run.id, limit_id] = _waiter(run, limit_id, at, new_id())

    def enter(self, run: R, state: State, actor: str, request_id: str | None) -> None:
        """Record that a run entered a state."""
        # The state before is needed for the log entry, and is replaced by the next line.
        self.transitions.append(Entered(run, self.states.get(run.id), state, actor, request_id))
        self.states[run.id] = state
        self.change_run(run)

    def join(self, run: TaskRun, state: State, actor: str, request_id: str | None) -> None:
        """Record a late state. It has a version, so the run gets a new one, but stays in its state."""
        self.late.append(Entered(run, None, state, actor, request_id))
        self.change_run(run)

    def claim(self, run_id: UUID, lease: Lease, claim_id: UUID, now: datetime) -> None:
        """Give a run that entered PENDING to a worker."""
        run = self.runs[run_id]
        assert isinstance(run, FlowRun)  # noqa: S101 workers claim flow runs only
        columns = {"id": claim_id, "created": now, "updated": now, "flow_run_id": run_id, "expires": lease.expires}
        held = {"worker_id": lease.worker_id, "work_queue_id": lease.work_queue_id, "lease_seconds": lease.seconds}
        self.new_claims.append(RunClaim.of(columns | held))
        self.change_run(run.replace(claim_id=claim_id, claim_count=run.claim_count + 1))

    def end_claim(self, run: FlowRun) -> None:
        """Take a run from its worker."""
        if run.claim_id is not None:
            self.gone_claims.add(run.claim_id)
            self.change_run(run.replace(claim_id=None))

    def apply(self, effects: Iterable[Effect], run: R, state: State, now: datetime, new_id: Callable[[], UUID]) -> None:
        """Apply the effects of a transition."""
        for effect in effects:
            match effect:
                case Acquire(slot, expires):
                    self.acquire(
                        slot.limit.id, 1, now, id=slot.new_lease_id, run_id=run.id, expires=expires, automatic=True
                    )
                case CacheResult(key, expires):
                    self.cache(key, expires, state, now, new_id)

    def cache(
        self, key: str, expires: datetime | None, state: State, now: datetime, new_id: Callable[[], UUID]
    ) -> None:
        """Store the state as the newest result under the key."""
        entry = {"id": new_id(), "created": now, "updated": now, "cache_key": key, "expires": expires}
        self.new_cached.append(CacheEntry.of({**entry, "digest": digest(key), "state_id": state.id}))
        self.cached.pop(key, None)  # the newest result replaces older ones even if it has expired already
        if expires is None or expires > now:
            # A later task run of the batch gets the data by a copy inside the database, as from a stored entry.
            self.cached[key] = state.fresh_copy(data=None, copied_from=state.id)

    def acquire(
        self,
        limit_id: UUID,
        slots: int,
        now: datetime,
        *,
        id: UUID,
        expires: datetime | None,
        run_id: UUID | None = None,
        holder: str | None = None,
        automatic: bool = False,
    ) -> ConcurrencyLease:
        """Acquire slots that the caller has found free. With decay, the lease expires when they are free again."""
        limit = after_acquire(self.limits[limit_id], slots, now)
        self._change_limit(limit)
        until = limit.drained if limit.slot_decay_per_second > 0 else expires
        columns = {"id": id, "created": now, "updated": now, "limit_id": limit_id, "slots": slots}
        holds = {"holder": holder, "run_id": run_id, "automatic": automatic, "expires": until}
        lease = ConcurrencyLease.of(columns | holds)
        self.add_lease(lease)
        self.new_leases.add(lease.id)
        return lease

    def release(self, lease: ConcurrencyLease, now: datetime) -> None:
        """Release a lease. It is removed, so it cannot be released twice."""
        limit = self.limits[lease.limit_id]
        self.has_released = True
        self._change_limit(after_release(limit, lease, now))
        del self.leases[lease.id]
        if lease.run_id is not None:
            self.leases_of[lease.run_id].remove(lease.id)
        if lease.id in self.new_leases:  # not stored yet
            self.new_leases.discard(lease.id)
        else:
            self.gone_leases.add(lease.id)
        if limit.slot_decay_per_second > 0:
            self._advance(limit, lease, now)

    def _advance(self, limit: ConcurrencyLimit, gone: ConcurrencyLease, now: datetime) -> None:
        """Let the leases behind a released one expire sooner: loaded ones here, all others by a statement."""
        if gone.expires is not None:
            self.advances.append(Advance(limit.id, gone.expires, saved_time(limit, gone, now)))
        for waiting in [each for each in self.leases.values() if each.limit_id == limit.id]:
            changed = advanced(limit, gone, waiting, now)
            if changed is not waiting:
                self.change_lease(changed)

    def renew(self, lease: ConcurrencyLease, expires: datetime | None, now: datetime) -> None:
        """Set the expiry of a lease. Leases with decay, and leases that a state holds without expiry, are not changed.

        Slots with decay become free at a fixed rate. A run that has left PENDING holds the slots of its state until it
        leaves that state: if such a lease expired, another run could start and exceed the limit.
        """
        kept_by_state = lease.automatic and lease.expires is None
        if self.limits[lease.limit_id].slot_decay_per_second == 0 and not kept_by_state:
            self.change_lease(lease.replace(expires=expires, updated=now))

    def change_lease(self, lease: ConcurrencyLease) -> None:
        """Record changed columns of a lease."""
        self.leases[lease.id] = lease
        # A new lease is inserted with its last columns.
        if lease.id not in self.new_leases:
            self.changed_leases.add(lease.id)

    def _change_limit(self, limit: ConcurrencyLimit) -> None:
        self.limits[limit.id] = limit
        self.changed_limits.add(limit.id)

    def held_by(self, run_id: UUID) -> list[ConcurrencyLease]:
        """Return the leases that a run holds."""
        return [self.leases[each] for each in self.leases_of.get(run_id, ())]


def _waiter(run: FlowRun | TaskRun, limit_id: UUID, now: datetime, id: UUID) -> ConcurrencyWaiter:
    kind = RunKind.TASK_RUN if isinstance(run, TaskRun) else RunKind.FLOW_RUN
    flow_run_id: UUID | None = run.flow_run_id if isinstance(run, TaskRun) else run.id
    its = {"limit_id": limit_id, "run_id": run.id, "run_kind": kind, "flow_run_id": flow_run_id}
    return ConcurrencyWaiter.of({"id": id, "created": now, "updated": now, **its})

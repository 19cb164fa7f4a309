"""Policies: an ordered list of rules for each kind of proposal. The first rule that objects decides."""

from typing import Any, Final

from runstate.core.proposal import Rule
from runstate.core.rules import (
    caching,
    cancelling,
    claims,
    concurrency,
    idempotency,
    parents,
    pausing,
    retries,
    scheduling,
    terminal,
)
from runstate.rows import FlowRun, TaskRun

CORE_FLOW: Final[tuple[Rule[FlowRun], ...]] = (
    concurrency.carry_lease,
    # Before rules that abort: a repeated proposal is rejected, not aborted.
    idempotency.refuse_repeated_transition,
    terminal.final_states_are_terminal,
    terminal.keep_result_of_flow_run,
    terminal.keep_persisted_result,
    terminal.reschedule_needs_deployment,
    terminal.reset_flow_run,
    cancelling.finish_cancelling,
    cancelling.cancel_at_once_without_infrastructure,
    scheduling.claim_once,
    concurrency.keep_deployment_slot,
    concurrency.take_deployment_slot,
    scheduling.late_once_and_only_when_scheduled,
    pausing.pause_while_running,
    pausing.pause_once_for_each_key,
    pausing.suspend_needs_deployment,
    pausing.note_the_pause,
    pausing.leave_pause_only_to_resume_or_end,
    pausing.resume_suspended_needs_deployment,
    pausing.expired_pause_fails,
    pausing.note_the_resuming,
    scheduling.carry_scheduled_time,
    scheduling.wait_for_scheduled_time,
    # After the wait for the scheduled time: a run that does not start yet acquires no slot.
    concurrency.take_deployment_slot_again,
    retries.retry_failed_flow_run,
)
"""Proposals of clients for flow runs."""

CORE_TASK: Final[tuple[Rule[TaskRun], ...]] = (
    caching.use_cached_result,
    terminal.final_states_are_terminal,
    terminal.keep_result_of_task_run,
    terminal.reset_task_run,
    parents.run_only_in_running_flow,
    concurrency.take_tag_slots,
    scheduling.carry_scheduled_time,
    scheduling.wait_for_scheduled_time,
    retries.retry_failed_task_run,
    retries.name_further_runs,
    retries.note_attempt_of_flow_run,
    caching.refuse_long_cache_key,
    caching.cache_result,
)
"""Proposals of clients for task runs."""

BACKGROUND_TASK: Final[tuple[Rule[TaskRun], ...]] = (
    scheduling.claim_once,
    caching.use_cached_result,
    terminal.final_states_are_terminal,
    terminal.keep_result_of_task_run,
    terminal.reset_task_run,
    scheduling.carry_scheduled_time,
    scheduling.carry_task_parameters,
    scheduling.wait_for_scheduled_time,
    retries.retry_failed_task_run,
    retries.name_further_runs,
    retries.note_attempt_of_flow_run,
    caching.refuse_long_cache_key,
    caching.cache_result,
)
"""Proposals for background task runs: the proposed state is marked as `deferred`."""

# `force` skips the rules that guard, but it must not lose a result.
MINIMAL_FLOW: Final[tuple[Rule[FlowRun], ...]] = (
    terminal.keep_persisted_result,
    cancelling.cancel_at_once_without_infrastructure,
)
"""Forced proposals for flow runs, and their first states."""

MINIMAL_TASK: Final[tuple[Rule[TaskRun], ...]] = ()
"""Forced proposals for task runs, and their first states."""

# Without the rules of pausing: they would refuse to leave a pause for CANCELLING.
CANCEL: Final[tuple[Rule[FlowRun], ...]] = (
    concurrency.carry_lease,
    terminal.final_states_are_terminal,
    cancelling.finish_cancelling,
    cancelling.cancel_at_once_without_infrastructure,
)
"""Proposals of `cancelFlowRun`, also for flow runs that are paused in their process."""

RETRY: Final[tuple[Rule[FlowRun], ...]] = (terminal.retry_only_after_the_end, *CORE_FLOW)
"""Proposals of `retryFlowRun`: the rules for proposals of clients, for ended runs only."""

MARK_LATE: Final[tuple[Rule[FlowRun], ...]] = (
    scheduling.late_once_and_only_when_scheduled,
    concurrency.cancel_late_run_without_slot,
)
"""Proposals of the service that marks late flow runs."""

# `force` is no excuse for a worker that has lost the run.
CLAIMED: Final[tuple[Rule[Any], ...]] = (claims.act_under_live_claim,)
"""Before the other rules, for proposals under a claim; also for forced ones."""

"""The policies: which rules are asked, in which order. The first rule that objects ends the matter."""

from typing import Final

from runstate.core.proposal import Rule
from runstate.core.rules import (
    caching,
    cancelling,
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
    idempotency.refuse_repeated_transition,
    terminal.end_is_the_end,
    terminal.keep_result_of_flow_run,
    terminal.keep_result_from_being_lost,
    terminal.reschedule_needs_deployment,
    terminal.start_flow_run_anew,
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
    pausing.resume_or_end,
    pausing.resume_suspended_needs_deployment,
    pausing.expired_pause_fails,
    pausing.note_the_resuming,
    scheduling.carry_scheduled_time,
    scheduling.wait_for_scheduled_time,
    concurrency.take_deployment_slot_again,
    retries.retry_failed_flow_run,
)
"""Flow runs, as clients propose states for them."""

CORE_TASK: Final[tuple[Rule[TaskRun], ...]] = (
    caching.use_cached_result,
    terminal.end_is_the_end,
    terminal.keep_result_of_task_run,
    terminal.start_task_run_anew,
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
"""Task runs, as clients propose states for them."""

BACKGROUND_TASK: Final[tuple[Rule[TaskRun], ...]] = (
    scheduling.claim_once,
    caching.use_cached_result,
    terminal.end_is_the_end,
    terminal.keep_result_of_task_run,
    terminal.start_task_run_anew,
    scheduling.carry_scheduled_time,
    scheduling.carry_task_parameters,
    scheduling.wait_for_scheduled_time,
    retries.retry_failed_task_run,
    retries.name_further_runs,
    retries.note_attempt_of_flow_run,
    caching.refuse_long_cache_key,
    caching.cache_result,
)
"""Task runs in the background: the proposed state is marked as deferred."""

MINIMAL_FLOW: Final[tuple[Rule[FlowRun], ...]] = (
    terminal.keep_result_from_being_lost,
    cancelling.cancel_at_once_without_infrastructure,
)
"""Flow runs, forced: also the state that a run is created with."""

MINIMAL_TASK: Final[tuple[Rule[TaskRun], ...]] = ()
"""Task runs, forced: also the state that a run is created with."""

CANCEL: Final[tuple[Rule[FlowRun], ...]] = (
    concurrency.carry_lease,
    terminal.end_is_the_end,
    cancelling.finish_cancelling,
    cancelling.cancel_at_once_without_infrastructure,
)
"""Flow runs that `cancelFlowRun` cancels, also while they are paused in their process."""

MARK_LATE: Final[tuple[Rule[FlowRun], ...]] = (
    scheduling.late_once_and_only_when_scheduled,
    concurrency.cancel_late_run_without_slot,
)
"""Flow runs that the service for late runs finds."""

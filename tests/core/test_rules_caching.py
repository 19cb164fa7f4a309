"""Cached results of task runs."""

from dataclasses import replace

import pytest

from runstate.core.proposal import Amend, CacheResult, Reject
from runstate.core.rules.caching import cache_result, refuse_long_cache_key, use_cached_result
from runstate.core.states import State, completed, running, scheduled
from runstate.documents.states import StateType
from tests.core.factories import NOT_ASKED, NOW, all_but, asked, details, entered, in_seconds, plain, task_run

KEYED = details(cache_key="k")
CACHED = entered(completed(message="done", data={"type": "reference"}, details=KEYED))


def test_a_task_run_with_a_cached_result_completes_with_it() -> None:
    said = asked(use_cached_result, task_run(), scheduled(NOW), running(details=KEYED), cached=CACHED)

    assert isinstance(said, Reject)
    assert said.instead == replace(CACHED, id=None, timestamp=None, version=None, name="Cached")


def test_a_task_run_without_a_cached_result_runs() -> None:
    assert asked(use_cached_result, task_run(), scheduled(NOW), running(details=KEYED)) is None


def test_a_task_run_that_refreshes_the_cache_runs() -> None:
    refreshing = running(details=details(cache_key="k", refresh_cache=True))

    assert asked(use_cached_result, task_run(), scheduled(NOW), refreshing, cached=CACHED) is None


def test_a_disabled_refresh_is_ignored() -> None:
    refreshing = running(details=details(cache_key="k", refresh_cache=False))

    assert isinstance(asked(use_cached_result, task_run(), None, refreshing, cached=CACHED), Reject)


@pytest.mark.parametrize("kind", all_but(StateType.RUNNING))
def test_cached_results_are_used_only_by_runs_that_start(kind: StateType) -> None:
    assert asked(use_cached_result, task_run(), None, plain(kind), cached=CACHED) == NOT_ASKED


def with_key(length: int) -> State:
    return completed(details=details(cache_key="k" * length))


def test_a_result_under_a_long_key_is_written_but_not_cached() -> None:
    said = asked(refuse_long_cache_key, task_run(), running(), with_key(2001))

    assert said == Reject(
        reason="The result is not cached: the cache key is longer than 2,000 characters.", instead=with_key(2001)
    )


@pytest.mark.parametrize("state", [completed(), with_key(1), with_key(2000)])
def test_a_key_may_have_2000_characters(state: State) -> None:
    assert asked(refuse_long_cache_key, task_run(), running(), state) is None


def test_a_result_with_a_key_is_stored_until_it_expires() -> None:
    state = completed(details=details(cache_key="k", cache_expiration=in_seconds(5)))

    assert asked(cache_result, task_run(), running(), state) == Amend(effects=(CacheResult("k", in_seconds(5)),))


def test_a_result_without_expiration_is_stored_indefinitely() -> None:
    assert asked(cache_result, task_run(), running(), with_key(1)) == Amend(effects=(CacheResult("k", None),))


@pytest.mark.parametrize("state", [completed(), completed(details=details(cache_key=""))])
def test_a_result_without_a_key_is_not_stored(state: State) -> None:
    assert asked(cache_result, task_run(), running(), state) is None


@pytest.mark.parametrize("kind", all_but(StateType.COMPLETED))
def test_only_results_are_stored(kind: StateType) -> None:
    assert asked(cache_result, task_run(), running(), plain(kind)) == NOT_ASKED
    assert asked(refuse_long_cache_key, task_run(), running(), plain(kind)) == NOT_ASKED


def test_a_result_that_is_not_stored_is_not_remembered() -> None:
    state = completed(data={"type": "unpersisted"}, details=KEYED)

    assert asked(cache_result, task_run(), running(), state) is None

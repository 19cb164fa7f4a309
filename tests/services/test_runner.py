"""The runner of services."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import structlog

from runstate.core import states
from runstate.core.batch.batcher import Batcher
from runstate.errors import ConfigurationError, Overloaded, Timeout
from runstate.services import SERVICES, Runner, Service, chosen
from runstate.services.runner import timed
from tests.services.factories import NOW, Making

LONG = 3600.0


@pytest.fixture
async def in_time() -> AsyncIterator[None]:
    async with asyncio.timeout(30):
        yield


class Rounds:
    """A service that records its rounds and fails in the first ones."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or LookupError("nothing here")
        self.times: list[datetime] = []
        self.done = asyncio.Queue[int]()

    async def __call__(self, batcher: Batcher, now: datetime) -> int:
        """Execute one round."""
        self.times.append(now)
        self.done.put_nowait(len(self.times))
        if len(self.times) <= self.failures:
            raise self.error
        return 1


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.usefixtures("in_time")
async def test_each_service_runs_immediately_and_then_repeatedly(make: Making) -> None:
    often, seldom = Rounds(), Rounds()
    runner = Runner(make.batcher, {"often": Service(often, 0), "seldom": Service(seldom, LONG)})

    runner.start()
    while await often.done.get() < 5:
        pass
    await runner.stop()

    assert len(often.times) >= 5
    assert seldom.times == [NOW]


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.parametrize("error", [Overloaded(), Timeout()])
@pytest.mark.usefixtures("in_time")
async def test_a_service_of_a_server_under_load_is_postponed_without_a_traceback(
    make: Making, error: Exception
) -> None:
    postponed = Rounds(1, error)
    runner = Runner(make.batcher, {"postponed": Service(postponed, 0)})

    with structlog.testing.capture_logs() as logs:
        runner.start()
        while await postponed.done.get() < 2:
            pass
        await runner.stop()

    assert logs[0] == {
        "event": "service_postponed",
        "service": "postponed",
        "reason": str(error).rstrip("."),
        "log_level": "warning",
    }


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.usefixtures("in_time")
async def test_a_service_that_fails_is_repeated_and_does_not_affect_others(make: Making) -> None:
    failing, other = Rounds(failures=3), Rounds()
    runner = Runner(make.batcher, {"failing": Service(failing, 0), "other": Service(other, 0)})

    with structlog.testing.capture_logs() as logs:
        runner.start()
        while await failing.done.get() < 5:
            pass
        while await other.done.get() < 5:
            pass
        await runner.stop()

    failures = [each for each in logs if each["log_level"] == "error"]
    assert [each["service"] for each in failures] == ["failing"] * 3
    rounds = [each for each in logs if each not in failures]
    assert rounds[0] == {"event": "service_round_completed", "service": "other", "done": 1, "log_level": "debug"}


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.usefixtures("in_time")
async def test_stopping_waits_for_running_rounds(make: Making) -> None:
    started, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(batcher: Batcher, now: datetime) -> int:
        started.set()
        await go_on.wait()
        ended.set()
        return 0

    runner = Runner(make.batcher, {"slow": Service(slow, 0)})
    runner.start()
    await started.wait()
    stopping = asyncio.create_task(runner.stop())
    await runner.stopping.wait()
    assert not stopping.done()
    go_on.set()
    await stopping

    assert ended.is_set()
    assert all(task.done() for task in runner.tasks)


@pytest.mark.parametrize("kind", ["sqlite"])
@pytest.mark.usefixtures("in_time")
async def test_stopping_does_not_wait_indefinitely(make: Making) -> None:
    started = asyncio.Event()

    async def endless(batcher: Batcher, now: datetime) -> int:
        started.set()
        await asyncio.Event().wait()
        return 0

    runner = Runner(make.batcher, {"endless": Service(endless, 0)})
    runner.start()
    await started.wait()
    await runner.stop(timeout_seconds=0)

    assert all(task.cancelled() for task in runner.tasks)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_runner_that_was_not_started_can_be_stopped(make: Making) -> None:
    await Runner(make.batcher, SERVICES).stop()


@pytest.mark.usefixtures("in_time")
async def test_all_services_together_run(make: Making) -> None:
    run = await make.flow_run(states.scheduled(NOW, NOW - timedelta(minutes=1)))
    marked = asyncio.Event()

    async def watched(batcher: Batcher, now: datetime) -> int:
        done = await SERVICES["late"].run_once(batcher, now)
        marked.set()
        return done

    runner = Runner(make.batcher, {**SERVICES, "late": replace(SERVICES["late"], run_once=watched)})
    with structlog.testing.capture_logs() as logs:
        runner.start()
        await marked.wait()
        await runner.stop()

    assert await make.flow_run_names(run) == ["Late"]
    said = [each for each in logs if each["event"] == "service_round_completed"]
    assert {each["service"]: each["done"] for each in said if each["service"] != "tally-compaction"} == {"late": 1}


NAMES = [
    "scheduler",
    "late",
    "pause-expiry",
    "lease-expiry",
    "claim-expiry",
    "cancellation",
    "orphans",
    "heartbeats",
    "actions",
    "tally-compaction",
    "automations",
    "statuses",
    "cleanup",
    "log-retention",
]


def test_services_are_selected_by_name() -> None:
    assert list(chosen("all")) == NAMES
    assert chosen("off") == {}
    assert chosen(" late, lease-expiry") == {"late": SERVICES["late"], "lease-expiry": SERVICES["lease-expiry"]}


@pytest.mark.parametrize("names", ["", "late,", "late,latte", "all,late", "Late"])
def test_an_unknown_service_is_refused(names: str) -> None:
    with pytest.raises(ConfigurationError, match=", ".join(NAMES)):
        chosen(names)


def test_additional_services_can_be_selected() -> None:
    further = {**SERVICES, "further": Service(Rounds(), 60)}

    assert "further" in chosen("all", further)
    assert list(chosen("further", further)) == ["further"]


def test_intervals_are_set_by_name() -> None:
    assert timed(SERVICES, {"late": 1.5})["late"].seconds == 1.5
    assert timed(SERVICES, {"late": 1.5})["lease-expiry"] == SERVICES["lease-expiry"]
    with pytest.raises(ConfigurationError, match="`nothing`"):
        timed(SERVICES, {"nothing": 1})

"""The background services and the runner that repeats them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

import structlog

from runstate.core.batch.batcher import Batcher
from runstate.database.failures import is_temporary, reason
from runstate.errors import ConfigurationError
from runstate.feed import EVENTS
from runstate.services import (
    actions,
    automations,
    cancellation,
    claim_expiry,
    cleanup,
    heartbeats,
    late,
    lease_expiry,
    log_retention,
    orphans,
    pause_expiry,
    scheduler,
    statuses,
    tally_compaction,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """Work that is repeated, on any number of servers at once."""

    run_once: Callable[[Batcher, datetime], Awaitable[int]]
    """Does the work that is due at a time, and returns the number of rows or runs changed."""
    seconds: float
    """Pause between the end of a round and the start of the next, in seconds."""
    channel: str | None = None
    """Channel whose notifications end the pause."""


SERVICES: Final[Mapping[str, Service]] = MappingProxyType(
    {
        "scheduler": Service(scheduler.run_once, 5),
        "late": Service(late.run_once, 5),
        "pause-expiry": Service(pause_expiry.run_once, 5),
        "lease-expiry": Service(lease_expiry.run_once, 15),
        "claim-expiry": Service(claim_expiry.run_once, 5),
        "cancellation": Service(cancellation.run_once, 20),
        "orphans": Service(orphans.run_once, 10),
        "heartbeats": Service(heartbeats.run_once, 5),
        "actions": Service(actions.run_once, 0.25),
        "tally-compaction": Service(tally_compaction.run_once, 10),
        "automations": Service(automations.run_once, 0.5, channel=EVENTS.channel),
        "statuses": Service(statuses.run_once, 5),
        "cleanup": Service(cleanup.run_once, 300),
        "log-retention": Service(log_retention.run_once, 300),
    }
)


def chosen(names: str, services: Mapping[str, Service] = SERVICES) -> dict[str, Service]:
    """Return the services of `all`, `off` or comma-separated names. Raises ConfigurationError for an unknown name."""
    if names.strip() in {"all", "off"}:
        return dict(services) if names.strip() == "all" else {}
    chosen_names = [name.strip() for name in names.split(",")]
    unknown = [name for name in chosen_names if name not in services]
    if unknown:
        known = ", ".join(services)
        raise ConfigurationError(f"Unknown service `{unknown[0]}`. Use `all`, `off`, or some of {known}.")
    return {name: services[name] for name in chosen_names}


def timed(services: Mapping[str, Service], seconds: Mapping[str, float]) -> dict[str, Service]:
    """Return the services with other intervals. Raises ConfigurationError for an unknown name."""
    unknown = seconds.keys() - services.keys()
    if unknown:
        raise ConfigurationError(
            f"Unknown service `{min(unknown)}` in RUNSTATE_SERVICE_INTERVALS. Known: {', '.join(services)}."
        )
    return {name: replace(each, seconds=seconds.get(name, each.seconds)) for name, each in services.items()}


class Runner:
    """Repeats services in the background, each in a task of its own, from `start` to `stop`."""

    def __init__(
        self,
        batcher: Batcher,
        services: Mapping[str, Service],
        ended: Callable[[str, int | None], None] = lambda _, __: None,
        subscribe: Callable[[str, Callable[[], None]], None] = lambda _, __: None,
    ) -> None:
        self.batcher = batcher
        self.services = services
        self.ended = ended
        """Called after each round with the name of the service and its result; None if it failed."""
        self.stopping = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.news = {name: asyncio.Event() for name in services}
        """Set for a service whose pause ends."""
        for name, each in services.items():
            if each.channel:
                subscribe(each.channel, self.news[name].set)

    def start(self) -> None:
        """Run each service now, and then at its interval."""
        # A task for each, so that a slow service delays no other.
        self.tasks = [asyncio.create_task(self._run(name, each)) for name, each in self.services.items()]

    async def stop(self, timeout_seconds: float = 10) -> None:
        """Start no more rounds and wait for running ones. After the timeout they are cancelled, which loses nothing."""
        self.stopping.set()
        for each in self.news.values():
            # Wakes services that pause.
            each.set()
        if not self.tasks:
            return
        _, running = await asyncio.wait(self.tasks, timeout=timeout_seconds)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, name: str, service: Service) -> None:
        while not self.stopping.is_set():
            # Cleared before the round: news that arrives during it begins another one at once.
            self.news[name].clear()
            await self._round(name, service)
            with suppress(TimeoutError):
                # Not `sleep`, so that a stop ends the pause at once.
                await asyncio.wait_for(self.news[name].wait(), service.seconds)

    async def _round(self, name: str, service: Service) -> None:
        try:
            done = await service.run_once(self.batcher, self.batcher.clock())
        # The loop must go on: the next round may succeed.
        except Exception as error:
            # A database that is away is the business of its operator: a line, and no traceback each five seconds.
            if is_temporary(error):
                log.warning("service_postponed", service=name, reason=reason(error))
            else:
                log.exception("service failed", service=name)
            self.ended(name, None)
        else:
            self.ended(name, done)
            if done:
                log.debug("service_round_completed", service=name, done=done)

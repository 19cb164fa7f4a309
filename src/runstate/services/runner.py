"""Which services there are, and what has each of them run again and again."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

import structlog

from runstate.core.batch.batcher import Batcher
from runstate.errors import ConfigurationError
from runstate.services import cancellation, cleanup, late, lease_expiry, orphans, pause_expiry, tally_compaction

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """Something that is done again and again, on any number of servers at once."""

    run_once: Callable[[Batcher, datetime], Awaitable[int]]
    """Does what there is to do at a time, and tells how much it was."""
    seconds: float
    """From the end of one round to the start of the next."""


SERVICES: Final[Mapping[str, Service]] = MappingProxyType(
    {
        "late": Service(late.run_once, 5),
        "pause-expiry": Service(pause_expiry.run_once, 5),
        "lease-expiry": Service(lease_expiry.run_once, 15),
        "cancellation": Service(cancellation.run_once, 20),
        "orphans": Service(orphans.run_once, 10),
        "tally-compaction": Service(tally_compaction.run_once, 10),
        "cleanup": Service(cleanup.run_once, 300),
    }
)


def chosen(names: str, services: Mapping[str, Service] = SERVICES) -> dict[str, Service]:
    """The services that `all`, `off`, or names with commas between mean; Misconfigured: there is no such service."""
    if names.strip() in {"all", "off"}:
        return dict(services) if names.strip() == "all" else {}
    asked = [name.strip() for name in names.split(",")]
    unknown = [name for name in asked if name not in services]
    if unknown:
        known = ", ".join(services)
        raise ConfigurationError(
            f"There is no service `{unknown[0]}`: RUNSTATE_SERVICES is all, off, or some of {known}."
        )
    return {name: services[name] for name in asked}


def timed(services: Mapping[str, Service], seconds: Mapping[str, float]) -> dict[str, Service]:
    """The services with other pauses between their rounds; Misconfigured: there is no such service."""
    unknown = seconds.keys() - services.keys()
    if unknown:
        raise ConfigurationError(f"There is no service `{min(unknown)}` to be timed: there are {', '.join(services)}.")
    return {name: replace(each, seconds=seconds.get(name, each.seconds)) for name, each in services.items()}


class Runner:
    """Runs services in the background, each in a task of its own, from `start` to `stop`."""

    def __init__(
        self,
        batcher: Batcher,
        services: Mapping[str, Service],
        ended: Callable[[str, int | None], None] = lambda _, __: None,
    ) -> None:
        self.batcher = batcher
        self.services = services
        self.ended = ended
        """Called after each round with the name of the service and how much it did; None: it failed."""
        self.stopping = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Run each service now, and again whenever its time has come."""
        self.tasks = [asyncio.create_task(self._run(name, each)) for name, each in self.services.items()]

    async def stop(self, patience_seconds: float = 10) -> None:
        """Start no more rounds, and wait for those under way; after a while they are given up, which does no harm."""
        self.stopping.set()
        if not self.tasks:
            return
        _, lasting = await asyncio.wait(self.tasks, timeout=patience_seconds)
        for task in lasting:
            task.cancel()
        await asyncio.gather(*lasting, return_exceptions=True)

    async def _run(self, name: str, service: Service) -> None:
        while not self.stopping.is_set():
            await self._round(name, service)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), service.seconds)

    async def _round(self, name: str, service: Service) -> None:
        try:
            done = await service.run_once(self.batcher, self.batcher.clock())
        except Exception:
            log.exception("service failed", service=name)
            self.ended(name, None)
        else:
            self.ended(name, done)
            if done:
                log.info("service has done something", service=name, done=done)

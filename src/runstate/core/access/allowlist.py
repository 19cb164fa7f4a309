"""The IP allowlist: networks from which the server may be used, cached in every process."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.database.driver import fetch
from runstate.feed.loop import repeat
from runstate.rows import Configuration

KEY: Final = "runstate.ip-allowlist"
CHANNEL: Final = "runstate_allowlist"
"""The channel of changes, which commands notify."""
REFRESH_SECONDS: Final = 5
"""Longest time between two refreshes; a notification refreshes sooner."""
SEEN_SECONDS: Final = 60
"""Time between two writes of when networks were used."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Entry(NamedTuple):
    """A network from which the server may be used."""

    network: Network
    enabled: bool = True
    description: str = ""
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True)
class Allowlist:
    """All networks. Without an enabled one, every address is allowed."""

    enforced: bool = False
    entries: tuple[Entry, ...] = ()

    def entry_of(self, address: Address) -> Entry | None:
        """Return the first enabled entry with an address."""
        return next((each for each in self.entries if each.enabled and address in each.network), None)

    def allows(self, address: Address | None) -> bool:
        """Return whether an address is allowed, whether the list is enforced or not. None stands for a local socket."""
        is_open = not any(each.enabled for each in self.entries)
        return is_open or address is None or self.entry_of(address) is not None

    def refuses(self, address: Address | None) -> bool:
        """Return whether a request from an address is refused."""
        return self.enforced and not self.allows(address)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Return the list from the JSON of the configuration."""
        return cls(value["enforced"], tuple(map(_entry, value["entries"])))

    def json(self) -> dict[str, Any]:
        """Return the list as JSON for the configuration."""
        return {"enforced": self.enforced, "entries": list(map(_json, self.entries))}


def _entry(value: Mapping[str, Any]) -> Entry:
    seen = value["last_seen"]
    return Entry(
        ip_network(value["network"]),
        value["enabled"],
        value["description"],
        None if seen is None else datetime.fromisoformat(seen),
    )


def _json(entry: Entry) -> dict[str, Any]:
    seen = None if entry.last_seen is None else entry.last_seen.isoformat()
    return {**entry._asdict(), "network": str(entry.network), "last_seen": seen}


@lru_cache(maxsize=1024)
def address_of(text: str) -> Address | None:
    """Return an address; an IPv4 address in IPv6 is one of IPv4. None if the text is not an address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


async def read(connection: AsyncConnection, *, lock: bool = False) -> Allowlist:
    """Return the list in the database, locked if so requested."""
    statement = sa.select(Configuration.value).where(Configuration.key == KEY)
    found = await fetch(connection, statement.with_for_update() if lock else statement)
    return Allowlist.parse(found[0][0]) if found else Allowlist()


class AllowlistCache:
    """The list as one process knows it, and when its networks were used."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self.database = database
        self.clock = clock
        self.current = Allowlist()
        self.seen: dict[Network, datetime] = {}
        self.has_news = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.written_at = 0.0

    async def start(self) -> None:
        """Read the list, and begin to refresh it."""
        await self.refresh()
        self.written_at = asyncio.get_running_loop().time()
        work = repeat(self._step, name="IP allowlist", pause_seconds=0, retry_seconds=REFRESH_SECONDS)
        self.task = asyncio.create_task(work)

    async def stop(self) -> None:
        """Stop refreshing."""
        while self.task and not self.task.done():
            # Repeated, because drivers can turn a cancellation into an error, after which the task goes on.
            self.task.cancel()
            await asyncio.wait([self.task], timeout=1)

    def admits(self, address: Address | None) -> bool:
        """Return whether a request from an address is admitted, and note the use of its network."""
        entry = self.current.entry_of(address) if address and self.current.entries else None
        if entry:
            self.seen[entry.network] = self.clock().replace(second=0, microsecond=0)
        return not self.current.refuses(address)

    async def refresh(self) -> None:
        """Read the list again."""
        async with self.database.read() as connection:
            self.current = await read(connection)

    async def _step(self) -> None:
        """Wait for a change, but not long; then read the list, and write the uses from time to time."""
        with suppress(TimeoutError):
            # Unlike `wait_for`, this never loses a cancellation that comes together with a change.
            async with asyncio.timeout(REFRESH_SECONDS):
                await self.has_news.wait()
        self.has_news.clear()
        await self.refresh()
        now = asyncio.get_running_loop().time()
        if self.seen and now - self.written_at > SEEN_SECONDS:
            self.written_at = now
            await self.write_seen()

    async def write_seen(self) -> None:
        """Write when networks were used."""
        seen, self.seen = self.seen, {}
        async with self.database.write() as transaction:
            current = await read(transaction.connection, lock=True)
            entries = tuple(
                each._replace(last_seen=max(filter(None, (each.last_seen, seen.get(each.network))), default=None))
                for each in current.entries
            )
            value = replace(current, entries=entries).json()
            same = sa.update(Configuration).where(Configuration.key == KEY)
            await transaction.connection.execute(same.values(value=value))

"""The command that replaces the IP allowlist."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Final

from pydantic import Field

from runstate.core.access.allowlist import CHANNEL, KEY, Address, Allowlist, Entry, read
from runstate.core.commands.command import command
from runstate.core.commands.crud import change, fresh, insert_or_find
from runstate.core.context import CommandContext
from runstate.documents.base import Document, ShortText
from runstate.errors import InvalidInput
from runstate.rows import Configuration

MOST_ENTRIES: Final = 1_000


class AllowlistEntry(Document):
    """A network from which the server may be used."""

    description: ShortText | None = Field(default=None, description="Description for people.")
    enabled: bool = Field(default=True, description="False to ignore the entry.")
    ip_network: str = Field(description="IPv4 or IPv6 address, or a network without bits of a host.")


class SetIPAllowlist(Document):
    """The whole allowlist."""

    enforced: bool = Field(description="True to refuse requests from other networks.")
    entries: Annotated[list[AllowlistEntry], Field(max_length=MOST_ENTRIES)] = Field(
        description="The networks, at most 1,000."
    )
    force: bool = Field(default=False, description="True to set the list even if it refuses the client itself.")


@command(Configuration)
async def set_allowlist(context: CommandContext, document: SetIPAllowlist, address: Address | None) -> Allowlist:
    """Replace the allowlist. Raise InvalidInput if it refuses the client's own address, unless it is forced."""
    entries = [_entry(number, each) for number, each in enumerate(document.entries)]
    async with context.database.write() as transaction:
        connection = transaction.connection
        known = {each.network: each.last_seen for each in (await read(connection, lock=True)).entries}
        kept = tuple(each._replace(last_seen=known.get(each.network)) for each in entries)
        allowlist = Allowlist(document.enforced, kept)
        if allowlist.refuses(address) and not document.force:
            raise InvalidInput(
                f"The list would refuse your own address {address}; `force` sets it anyway.", ["entries"]
            )
        columns = {"key": KEY, "value": allowlist.json()}
        found = await insert_or_find(connection, Configuration, fresh(context) | columns, ("key",), lock=True)
        if not found.created:
            await change(connection, Configuration, {"key": KEY}, {"value": columns["value"]}, context.clock())
        transaction.notify(CHANNEL)
    return allowlist


def _entry(number: int, given: AllowlistEntry) -> Entry:
    try:
        network = ip_network(given.ip_network)
    except ValueError as error:
        raise InvalidInput(f"{error}.", ["entries", str(number), "ipNetwork"]) from None
    return Entry(network, given.enabled, given.description or "")

"""The IP allowlist: ipAllowlist, myIpAccess, setIpAllowlist."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any

import strawberry
from strawberry import UNSET

from runstate.core.access.allowlist import Allowlist, Entry, address_of, read
from runstate.core.commands.allowlist import AllowlistEntry, SetIPAllowlist, set_allowlist
from runstate.documents.access import Scope
from runstate.errors import BadUserInput, InvalidInput
from runstate.graphql.context import Info
from runstate.graphql.families.mutations import mutation, payload
from runstate.graphql.types.conditions import is_set
from runstate.graphql.types.fields import object_type, query
from runstate.graphql.types.inputs import Input, register_input

register_input(AllowlistEntry, name="IPAllowlistEntryInput")


@object_type
class IPAllowlistEntry:
    """A network from which the server may be used."""

    description: str = strawberry.field(description="Description for people.")
    enabled: bool = strawberry.field(description="False if the entry is ignored.")
    ip_network: str = strawberry.field(description="Network in CIDR notation; a single address ends with /32 or /128.")
    last_seen: datetime | None = strawberry.field(
        description="Time of the last request from there, to the minute; null if there was none."
    )


@object_type
class IPAllowlist:
    """Networks from which the server may be used. Without an enabled entry, all are allowed."""

    enforced: bool = strawberry.field(
        description="True if requests from other networks are refused with status 403, except health checks."
    )
    entries: list[IPAllowlistEntry] = strawberry.field(description="The networks, in the given order.")


@object_type
class IPAllowlistMyAccess:
    """The decision about an address."""

    address: str = strawberry.field(description="The address.")
    allowed: bool = strawberry.field(description="True if the list allows it, whether the list is enforced or not.")
    detail: str = strawberry.field(description="The reason, for people.")


def _shown(allowlist: Allowlist) -> IPAllowlist:
    return IPAllowlist(enforced=allowlist.enforced, entries=[_entry(each) for each in allowlist.entries])


def _entry(entry: Entry) -> IPAllowlistEntry:
    return IPAllowlistEntry(
        description=entry.description,
        enabled=entry.enabled,
        ip_network=str(entry.network),
        last_seen=entry.last_seen,
    )


SetIPAllowlistPayload: Any = payload(
    "SetIPAllowlistPayload", "The allowlist as written.", ip_allowlist=(IPAllowlist, "The allowlist.")
)
Given = Annotated[Input[SetIPAllowlist], strawberry.argument(description="The whole allowlist.")]
Asked = Annotated[
    str | None, strawberry.argument(description="IPv4 or IPv6 address; the client's own address by default.")
]


@strawberry.type
class Query:
    """The allowlist, and the decision about an address."""

    @partial(query, scope=Scope.ADMIN)
    async def ip_allowlist(self, info: Info) -> IPAllowlist:
        """The networks from which the server may be used."""
        async with info.context.database.read() as connection:
            return _shown(await read(connection))

    @query
    async def my_ip_access(self, info: Info, address: Asked = UNSET) -> IPAllowlistMyAccess:
        """The decision of the allowlist about an address."""
        wanted = address_of(address) if is_set(address) and address else info.context.address
        if wanted is None and is_set(address):
            raise BadUserInput("`address` is not an IPv4 or IPv6 address.")
        async with info.context.database.read() as connection:
            allowlist = await read(connection)
        entry = allowlist.entry_of(wanted) if wanted else None
        allowed = allowlist.allows(wanted)
        detail = f"It is in {entry.network}." if entry else "No entry is enabled." if allowed else "It is in no entry."
        return IPAllowlistMyAccess(address=str(wanted or "local"), allowed=allowed, detail=detail)


@strawberry.type
class Mutation:
    """The allowlist."""

    @mutation(Scope.ADMIN, InvalidInput, returns=SetIPAllowlistPayload, result="SetIPAllowlistResult")
    async def set_ip_allowlist(self, info: Info, input: Given) -> Any:
        """Replace the allowlist. A list that refuses the client itself is refused, unless `force` is given."""
        written = await set_allowlist(info.context.commands, input.checked(), info.context.address)
        return SetIPAllowlistPayload(ip_allowlist=_shown(written))

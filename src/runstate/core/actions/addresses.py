"""Addresses that actions may connect to: public ones, and networks that a setting allows."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenAddress(OSError):
    """The address is not public, and no setting allows it."""


class Addresses:
    """Public addresses, and some networks besides."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self.networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, networks))

    def permits(self, address: str) -> bool:
        """Return whether an address, without a name to resolve, may be connected to."""
        try:
            # A link-local address of IPv6 has its interface after the `%`.
            found = _plain(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if any(found in network for network in self.networks):
            return True
        # Python counts some multicast and reserved addresses as global.
        return found.is_global and not (found.is_multicast or found.is_reserved)

    def check(self, address: str) -> None:
        """Raise ForbiddenAddress if an address may not be connected to."""
        if not self.permits(address):
            raise ForbiddenAddress(
                f"The address {address} is not public. RUNSTATE_ACTION_ALLOWED_NETWORKS can allow its network."
            )


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    # Otherwise a private IPv4 address could be reached by an IPv6 address that stands for it.
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

"""Sockets that a server listens on, bound before the database is opened."""

import errno
import socket
from contextlib import ExitStack

from runstate.errors import ConfigurationError

BACKLOG = 2048


def bind(host: str, port: int) -> list[socket.socket]:
    """Return a socket bound to each address of a host, all with the same port. Raise ConfigurationError if that fails.

    The sockets do not listen yet: early clients are refused instead of waiting while tables are migrated.
    """
    with ExitStack() as opened:
        bound: list[socket.socket] = []
        try:
            # An empty host means all addresses.
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            # The list can contain duplicates.
            for family, _, _, _, address in dict.fromkeys(found):
                # With port 0 the system chooses a port for the first socket; the others use the same.
                free = bound[0].getsockname()[1] if bound else port
                bound += _bound(opened, family, (address[0], free, *address[2:]), needed=not bound)
        except OSError as error:
            raise ConfigurationError(f"Cannot listen on {host}, port {port}: {error.strerror}.") from None
        # Keeps the sockets open; they are closed only if an exception was raised.
        opened.pop_all()
    return bound


def _bound(opened: ExitStack, family: int, address: tuple[object, ...], *, needed: bool) -> list[socket.socket]:
    """Return a bound socket; none if it is not needed and the machine lacks the address, such as ::1 without IPv6."""
    try:
        sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # A restart need not wait for the old connections in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # The IPv4 address has a socket of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        if not needed and error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
            return []
        raise
    return [sock]

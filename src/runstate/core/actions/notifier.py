"""The process that sends notifications. Each of its connections is checked, whatever library opens it."""

import logging
import socket
from typing import Any, Final
from urllib.parse import urlsplit

import apprise
import orjson

from runstate.core.actions.addresses import Addresses, ForbiddenAddress
from runstate.core.validation.serving import serve

LOCAL: Final = frozenset({"dbus", "glib", "gio", "gnome", "kde", "qt", "macosx", "windows", "syslog", "file"})
"""Services of the machine itself."""
LONGEST_REASON: Final = 500


class Connections:
    """The check of connections."""

    addresses = Addresses()
    forbidden: str | None = None
    """The reason for which a connection of the present request was refused."""


class CheckedSocket(socket.socket):
    """A socket that connects to permitted addresses only."""

    def connect(self, address: Any) -> None:
        """Connect to a permitted address."""
        _check(self, address)
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        """Connect to a permitted address; return the number of the error."""
        _check(self, address)
        return super().connect_ex(address)


def _check(sock: socket.socket, address: Any) -> None:
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise ForbiddenAddress("Sockets of this machine are not permitted.")
        host, port = address[:2]
        # A name could be resolved to another address after the check.
        for *_, resolved in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST):
            Connections.addresses.check(str(resolved[0]))
    except OSError as error:
        Connections.forbidden = str(error)
        raise


def answer(request: bytes) -> bytes:
    """Send a notification; return whether it was sent, may be sent again, or failed."""
    given = orjson.loads(request)
    Connections.addresses, Connections.forbidden = Addresses(given["networks"]), None
    status, reason = sent(given["urls"], given["title"], given["body"])
    return orjson.dumps({"status": status, "reason": refused(reason)[:LONGEST_REASON]})


def refused(reason: str) -> str:
    """Return why a connection was refused, or another reason if none was."""
    return Connections.forbidden or reason


def sent(urls: list[str], title: str, body: str) -> tuple[str, str]:
    """Return the outcome of a notification and its reason."""
    services = apprise.Apprise()
    for url in urls:
        if urlsplit(url).scheme.lower() in LOCAL or not services.add(url):
            # The URL can hold secrets.
            return "failed", f"The block has a URL that is no notification service: {urlsplit(url).scheme[:30]}://…"
    try:
        if services.notify(body=body, title=title):
            return "sent", ""
    except (TypeError, ValueError) as error:
        return "failed", str(error)
    return outcome(), "The notification service did not accept the message."


def outcome() -> str:
    """Return whether a notification that was not accepted may be sent again."""
    return "failed" if Connections.forbidden else "again"


if __name__ == "__main__":
    socket.socket = CheckedSocket  # type: ignore[misc]
    logging.disable()
    # Loads all services, before the time of a request is measured.
    apprise.Apprise().details()
    serve(answer)

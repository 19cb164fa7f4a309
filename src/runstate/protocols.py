"""The protocols of connections, with the counts that they share."""

from typing import Any

import uvicorn

from runstate.connections import Connections
from runstate.http_protocol import HttpProtocol
from runstate.socket_protocol import SocketProtocol


class Config(uvicorn.Config):
    """Uvicorn's configuration, with the counts of connections that its protocols share."""

    def __init__(self, app: Any, guard: Connections, **options: Any) -> None:
        super().__init__(app, http=HttpProtocol, ws=SocketProtocol, **options)
        self.guard = guard

"""Who asks: credentials are checked once, then looked at again and again for as long as they are in use."""

import asyncio
import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Final
from weakref import WeakSet

import structlog

from runstate.core.access import keys
from runstate.database import Database
from runstate.documents.access import ANONYMOUS, Scope, included
from runstate.errors import Unauthenticated
from runstate.rows import ApiKey

REFRESH_SECONDS: Final = 0.5
KEPT_SECONDS: Final = 60.0
"""For how long a key that nobody uses is still known."""
LAST_USED_WRITE_SECONDS: Final = 60.0
"""How often it is kept when keys were last used."""
LOOKUPS: Final = 4
"""How many keys that are not known here are looked for at a time: strangers do not get every connection."""

log = structlog.get_logger(__name__)


class Principal:
    """Who asks, and what they may do."""

    over: asyncio.Event | None = None
    """Set when they may do nothing any more; null: that does not happen."""

    def __init__(self, name: str, scopes: Iterable[Scope]) -> None:
        self.name = name
        self.scopes = included(scopes)


UNRESTRICTED: Final = Principal(ANONYMOUS, Scope)
"""Who asks where nobody has to say who they are."""


class ApiKeyPrincipal(Principal):
    """Who holds a key. Looked at for as long as anything refers to it: a request, a socket, a stream."""

    over: asyncio.Event

    def __init__(self, key: ApiKey) -> None:
        super().__init__(key.name, map(Scope, key.scopes))
        self.key = key
        self.over = asyncio.Event()
        self.used = 0.0
        """When the key was last used, by the loop's clock."""


class CredentialCache:
    """The credentials that let in. What it says of a key is never older than twice the time between two looks."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        auth_string: str | None = None,
        look_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self.database = database
        self.clock = clock
        self.look_seconds = look_seconds
        self.auth_string = auth_string
        self.user = Principal((auth_string or "").partition(":")[0], [Scope.ADMIN])
        self.known: dict[str, ApiKeyPrincipal] = {}
        """Holders of keys used lately, by what their keys begin with."""
        self.holders = WeakSet[ApiKeyPrincipal]()
        self.looked = 0.0
        self.noted = 0.0
        self.looking = asyncio.Lock()
        self.lookups = asyncio.Semaphore(LOOKUPS)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at the keys in use."""
        self.looked = self.noted = self._now()
        self.task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self.task:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task

    async def admit(self, authorization: str | None) -> Principal:
        """Whose credential this is, as `Authorization` holds it; Unauthenticated: nobody's."""
        scheme, _, credential = (authorization or "").strip().partition(" ")
        match scheme.lower():
            case "bearer":
                return await self._holder(credential.strip())
            case "basic" if self.auth_string is not None and _is_basic(credential.strip(), self.auth_string):
                return self.user
        raise Unauthenticated

    async def _holder(self, text: str) -> ApiKeyPrincipal:
        prefix = keys.prefix_of(text)
        if prefix is None:
            raise Unauthenticated
        if self._now() - self.looked > 2 * self.look_seconds:
            await self.look(2 * self.look_seconds)
        holder = self.known.get(prefix) or await self._meet(prefix)
        if not hmac.compare_digest(holder.key.digest, keys.digest(text)) or self._is_over(holder):
            raise Unauthenticated
        holder.used = self._now()
        return holder

    async def _meet(self, prefix: str) -> ApiKeyPrincipal:
        """The holder of a key that was not in use here."""
        async with self.lookups:
            if prefix in self.known:
                return self.known[prefix]
            key = await keys.find(self.database, self.clock(), prefix)
        if key is None:
            raise Unauthenticated
        holder = self.known.setdefault(prefix, ApiKeyPrincipal(key))
        self.holders.add(holder)
        return holder

    async def look(self, unless_younger: float = 0.0) -> None:
        """See which of the keys in use let in still: one statement; none when there are none."""
        async with self.looking:
            began = self._now()
            if began - self.looked < unless_younger:
                return
            self.known = {prefix: each for prefix, each in self.known.items() if each.used > began - KEPT_SECONDS}
            in_use = list(self.holders)
            if in_use:
                good = await keys.still_good(self.database, self.clock(), {each.key.id for each in in_use})
                for holder in in_use:
                    if holder.key.id not in good:
                        self._end(holder)
            self.looked = began

    def _end(self, holder: ApiKeyPrincipal) -> None:
        self.known.pop(holder.key.prefix, None)
        self.holders.discard(holder)
        holder.over.set()
        log.info("key_over", actor=holder.name)

    def _is_over(self, holder: ApiKeyPrincipal) -> bool:
        expires = holder.key.expires
        return holder.over.is_set() or (expires is not None and expires <= self.clock())

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
                await self.note()
            except Exception as error:  # noqa: BLE001 requests look for themselves until it goes well again
                log.warning("keys_not_seen", error=repr(error))
            await asyncio.sleep(self.look_seconds)

    async def note(self) -> None:
        """Keep when keys were last used, now and then."""
        now = self._now()
        if now - self.noted < LAST_USED_WRITE_SECONDS:
            return
        used = [each.key.id for each in self.known.values() if each.used >= self.noted]
        if used:
            await keys.note_use(self.database, self.clock(), used)
        self.noted = now

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _is_basic(credential: str, auth_string: str) -> bool:
    """Whether a credential is this user and password."""
    try:
        given = b64decode(credential, validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(given, auth_string.encode())

"""Principals of requests. Valid credentials are cached and refreshed for as long as they are in use."""

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
from runstate.database.failures import is_temporary
from runstate.documents.access import ANONYMOUS, Scope, included
from runstate.errors import Unauthenticated
from runstate.rows import ApiKey

REFRESH_SECONDS: Final = 0.5
"""Seconds between two refreshes of the cache."""
KEPT_SECONDS: Final = 60.0
"""Seconds after which an unused key is removed from the cache."""
LAST_USED_WRITE_SECONDS: Final = 60.0
"""Seconds between two writes of the times of last use."""
LOOKUPS: Final = 4
"""Number of unknown keys that are looked up at once: requests with invalid keys must not use all connections."""

log = structlog.get_logger(__name__)


class Principal:
    """A client and its scopes."""

    over: asyncio.Event | None = None
    """Set when the credential was revoked or has expired; None if that cannot happen."""

    def __init__(self, name: str, scopes: Iterable[Scope]) -> None:
        self.name = name
        self.scopes = included(scopes)


UNRESTRICTED: Final = Principal(ANONYMOUS, Scope)
"""The principal of all requests if authentication is off."""


class ApiKeyPrincipal(Principal):
    """The holder of an API key. Refreshes check the key for as long as a request, socket or stream refers to it."""

    over: asyncio.Event

    def __init__(self, key: ApiKey) -> None:
        super().__init__(key.name, map(Scope, key.scopes))
        self.key = key
        self.over = asyncio.Event()
        self.used = 0.0
        """Time of the last use, by the loop's clock."""


class CredentialCache:
    """A cache of valid credentials. An entry is at most as old as two intervals between refreshes."""

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
        self.user = Principal((auth_string or "").partition(":")[0], Scope)
        self.known: dict[str, ApiKeyPrincipal] = {}
        """Holders of recently used keys, by prefix of the key."""
        self.holders = WeakSet[ApiKeyPrincipal]()
        """All holders that something refers to; a long-lived socket may outlast the entry in `known`."""
        self.looked = 0.0
        """Time of the last refresh, by the loop's clock."""
        self.noted = 0.0
        """Time of the last write of times of use, by the loop's clock."""
        # One refresh at a time: other callers wait for its result.
        self.looking = asyncio.Lock()
        self.lookups = asyncio.Semaphore(LOOKUPS)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start refreshing."""
        self.looked = self.noted = self._now()
        self.task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop refreshing."""
        if self.task:
            self.task.cancel()
            # The task ends with CancelledError, which is expected.
            with suppress(asyncio.CancelledError):
                await self.task

    async def admit(self, authorization: str | None) -> Principal:
        """Return the principal of an `Authorization` header. Raise Unauthenticated if the credential is invalid."""
        scheme, _, credential = (authorization or "").strip().partition(" ")
        match scheme.lower():
            case "bearer":
                return await self._holder(credential.strip())
            case "basic" if self.auth_string is not None and _is_basic(credential.strip(), self.auth_string):
                return self.user
        raise Unauthenticated

    async def _holder(self, text: str) -> ApiKeyPrincipal:
        # Rows are found by the prefix, which is no secret: a search by the digest could tell something by its time.
        prefix = keys.prefix_of(text)
        if prefix is None:
            raise Unauthenticated
        # The task refreshes the cache in time, unless the loop was blocked or the database unavailable.
        if self._now() - self.looked > 2 * self.look_seconds:
            await self.look(2 * self.look_seconds)
        # A key in use needs no statement here: one statement checks all such keys twice a second.
        holder = self.known.get(prefix) or await self._meet(prefix)
        # In constant time, so that response times tell nothing about the digest.
        if not hmac.compare_digest(holder.key.digest, keys.digest(text)) or self._is_over(holder):
            raise Unauthenticated
        holder.used = self._now()
        return holder

    async def _meet(self, prefix: str) -> ApiKeyPrincipal:
        """Look up the holder of a key that is not in the cache."""
        async with self.lookups:
            if prefix in self.known:  # another request has looked it up meanwhile
                return self.known[prefix]
            key = await keys.find(self.database, self.clock(), prefix)
        if key is None:
            raise Unauthenticated
        # Several lookups run at once, so another one of the same key may have finished first.
        holder = self.known.setdefault(prefix, ApiKeyPrincipal(key))
        self.holders.add(holder)
        return holder

    async def look(self, unless_younger: float = 0.0) -> None:
        """Refresh the cache with one statement, or with none if no key is in use. Invalid keys end their streams."""
        async with self.looking:
            began = self._now()
            # Another request may have refreshed the cache while this one waited for the lock.
            if began - self.looked < unless_younger:
                return
            self.known = {prefix: each for prefix, each in self.known.items() if each.used > began - KEPT_SECONDS}
            # A list, so that no holder is freed during the statement.
            in_use = list(self.holders)
            if in_use:
                good = await keys.still_good(self.database, self.clock(), {each.key.id for each in in_use})
                for holder in in_use:
                    if holder.key.id not in good:
                        self._end(holder)
            # The time before the statement: the statement may have missed a revocation that came after it.
            self.looked = began

    def _end(self, holder: ApiKeyPrincipal) -> None:
        self.known.pop(holder.key.prefix, None)
        self.holders.discard(holder)
        holder.over.set()
        log.info("key_over", actor=holder.name)

    def _is_over(self, holder: ApiKeyPrincipal) -> bool:
        # The cache does not know when a key expires, and a refresh may be half a second away.
        expires = holder.key.expires
        return holder.over.is_set() or (expires is not None and expires <= self.clock())

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
                await self.note()
            except Exception as error:  # the loop must go on; requests refresh an old cache themselves
                if not is_temporary(error):
                    log.exception("keys_not_refreshed")
            await asyncio.sleep(self.look_seconds)

    async def note(self) -> None:
        """Write the times of last use, at most once per interval."""
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
    """Return whether a Basic credential is this user and password."""
    # Without `validate`, b64decode ignores characters outside the alphabet.
    try:
        given = b64decode(credential, validate=True)
    except ValueError:
        return False
    # compare_digest rejects strings that are not ASCII, so it compares bytes.
    return hmac.compare_digest(given, auth_string.encode())

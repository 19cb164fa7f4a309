"""Authentication: a key is looked up once and checked again while it is in use."""

import gc
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest

from runstate.core.access.credentials import KEPT_SECONDS, LAST_USED_WRITE_SECONDS, ApiKeyPrincipal, CredentialCache
from runstate.core.access.keys import checksum, prefix_of
from runstate.database import Database
from runstate.documents.access import Scope
from runstate.errors import Unauthenticated
from tests.credentials import Keys, statements

NOW = datetime.now(UTC)


class Clock:
    """A clock that tests set."""

    now = NOW

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database)


@pytest.fixture
def credentials(database: Database, clock: Clock) -> CredentialCache:
    """Yield a cache of credentials that checks keys only when a test calls for it."""
    return CredentialCache(database, clock, auth_string="ops:sécret", look_seconds=3600)


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


async def test_a_key_is_looked_up_once(database: Database, keys: Keys, credentials: CredentialCache) -> None:
    key = await keys.make("ci", "propose")

    async with statements(database, "api_key") as read:
        principals = {await credentials.admit(f"Bearer {key}") for _ in range(5)}

    (principal,) = principals
    assert principal.name == "ci"
    assert principal.scopes == {"read", "propose"}
    assert len(read) == 1


async def test_all_keys_in_use_are_checked_in_one_statement(
    database: Database, keys: Keys, credentials: CredentialCache
) -> None:
    held = [await credentials.admit(f"Bearer {await keys.make(name)}") for name in ("a", "b", "c")]

    async with statements(database, "api_key") as read:
        await credentials.look()

    assert len(read) == 1
    assert [each.over.is_set() for each in held if each.over] == [False] * 3


async def test_nothing_is_checked_if_no_key_is_in_use(
    database: Database, keys: Keys, credentials: CredentialCache
) -> None:
    await keys.make("idle")

    async with statements(database, "") as read:
        await credentials.look()

    assert read == []


async def test_an_open_connection_keeps_its_key_checked(keys: Keys, credentials: CredentialCache) -> None:
    holder = await credentials.admit(f"Bearer {await keys.make('long')}")
    assert isinstance(holder, ApiKeyPrincipal)
    holder.used -= KEPT_SECONDS
    await credentials.look()
    assert (len(credentials.known), len(credentials.holders)) == (0, 1)

    await keys.revoke("long")
    await credentials.look()

    assert holder.over.is_set()


async def test_a_key_without_connections_is_forgotten(keys: Keys, credentials: CredentialCache) -> None:
    holder = await credentials.admit(f"Bearer {await keys.make('short')}")
    assert isinstance(holder, ApiKeyPrincipal)
    holder.used -= KEPT_SECONDS
    await credentials.look()
    del holder
    gc.collect()

    assert (len(credentials.known), len(credentials.holders)) == (0, 0)


async def test_a_revoked_key_is_refused_after_the_next_check(keys: Keys, credentials: CredentialCache) -> None:
    key = await keys.make("ci")
    holder = await credentials.admit(f"Bearer {key}")
    await keys.revoke("ci")
    await credentials.look()

    assert holder.over
    assert holder.over.is_set()
    with pytest.raises(Unauthenticated):
        await credentials.admit(f"Bearer {key}")


async def test_an_expired_key_is_refused_immediately(keys: Keys, credentials: CredentialCache, clock: Clock) -> None:
    key = await keys.make("ci", expires=NOW + timedelta(minutes=5))
    holder = await credentials.admit(f"Bearer {key}")
    clock.now = NOW + timedelta(minutes=5)

    with pytest.raises(Unauthenticated):
        await credentials.admit(f"Bearer {key}")
    await credentials.look()
    assert holder.over
    assert holder.over.is_set()


async def test_cached_keys_are_not_trusted_if_the_check_is_overdue(keys: Keys, credentials: CredentialCache) -> None:
    key = await keys.make("ci")
    await credentials.admit(f"Bearer {key}")
    await keys.revoke("ci")
    credentials.look_seconds = 0

    with pytest.raises(Unauthenticated):
        await credentials.admit(f"Bearer {key}")


async def test_a_key_with_another_secret_is_refused(keys: Keys, credentials: CredentialCache) -> None:
    key, other = await keys.make("ci"), await keys.make("other")
    secret = f"{key[:11]}_{other[12:60]}"
    forged = secret + checksum(secret)
    assert prefix_of(forged) == prefix_of(key)

    with pytest.raises(Unauthenticated):
        await credentials.admit(f"Bearer {forged}")
    assert (await credentials.admit(f"bearer  {key} ")).name == "ci"
    with pytest.raises(Unauthenticated):
        await credentials.admit(f"Bearer {forged}")


async def test_user_and_password_grant_every_scope(credentials: CredentialCache) -> None:
    principal = await credentials.admit(basic("ops:sécret"))

    assert principal.name == "ops"
    assert principal.scopes == frozenset(Scope)
    assert principal.over is None


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer rs_aaaaaaaa_" + "a" * 55,
        "Basic",
        "Basic !",
        "Digest x",
        basic("ops:"),
        basic("ops:secret"),
        basic("ops:sécret "),
        "ops:sécret",
    ],
)
async def test_other_credentials_are_refused(credentials: CredentialCache, authorization: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await credentials.admit(authorization)


async def test_without_the_setting_no_user_is_accepted(database: Database, clock: Clock) -> None:
    credentials = CredentialCache(database, clock)

    for text in (":", "", "None"):
        with pytest.raises(Unauthenticated):
            await credentials.admit(basic(text))


async def test_the_time_of_the_last_use_is_written_at_intervals(
    database: Database, keys: Keys, credentials: CredentialCache, clock: Clock
) -> None:
    key = await keys.make("ci")
    await keys.make("idle")
    await credentials.admit(f"Bearer {key}")
    credentials.noted -= LAST_USED_WRITE_SECONDS
    async with statements(database, "UPDATE") as written:
        await credentials.note()
        await credentials.note()

    assert len(written) == 1
    assert await keys.used("ci") == clock.now
    assert await keys.used("idle") is None

"""API keys: their form, what is stored of them, and how long they are valid."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from runstate.core.access import keys
from runstate.database import Database
from runstate.documents.access import Scope, included
from runstate.errors import ConfigurationError
from runstate.rows import ApiKey

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def drawing(seed: int = 0) -> Callable[[int], bytes]:
    return lambda number: bytes((seed + place) % 256 for place in range(number))


async def make_key(database: Database, name: str = "ci", seed: int = 0, expires: datetime | None = None) -> str:
    text = keys.mint(drawing(seed))
    await keys.create(database, NOW, text, id=uuid4(), name=name, scopes=[Scope.READ], expires=expires)
    return text


async def found(database: Database, text: str, now: datetime = NOW) -> str | None:
    prefix = keys.prefix_of(text)
    assert prefix
    key = await keys.find(database, now, prefix)
    return key.name if key else None


def test_a_key_is_recognizable_by_its_prefix() -> None:
    assert re.fullmatch(r"rs_[a-z2-7]{8}_[a-z2-7]{55}", keys.mint(drawing()))


def test_two_keys_have_nothing_in_common() -> None:
    one, other = keys.mint(drawing(1)), keys.mint(drawing(2))

    assert keys.prefix_of(one) != keys.prefix_of(other)
    assert keys.digest(one) != keys.digest(other)


@pytest.mark.parametrize("place", [0, 3, 12, 40, 66])
def test_a_mistyped_key_is_invalid(place: int) -> None:
    text = keys.mint(drawing())
    mistyped = text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]

    assert keys.prefix_of(text) == text[:11]
    assert keys.prefix_of(mistyped) is None


@pytest.mark.parametrize("text", ["", "rs_", "admin:secret", "rs_aaaaaaaa_é", "x" * 5000])
def test_other_texts_are_not_keys(text: str) -> None:
    assert keys.prefix_of(text) is None


@pytest.mark.parametrize(
    ("scopes", "all_of_them"),
    [
        ([], set()),
        ([Scope.READ], {"read"}),
        ([Scope.PROPOSE], {"read", "propose"}),
        ([Scope.PROPOSE, Scope.READ], {"read", "propose"}),
        ([Scope.ADMIN], {"read", "propose", "admin"}),
    ],
    ids=lambda each: "-".join(sorted(each)) or "none",
)
def test_a_scope_includes_those_before_it(scopes: list[Scope], all_of_them: set[str]) -> None:
    assert included(scopes) == all_of_them


async def test_only_a_digest_of_a_key_is_stored(database: Database) -> None:
    text = await make_key(database)

    async with database.read() as connection:
        (row,) = (await connection.execute(sa.select(*ApiKey.__table__.columns))).mappings()
    assert text.rpartition("_")[2] not in str(dict(row))
    assert row["digest"] == keys.digest(text)


async def test_a_key_is_valid_until_it_expires(database: Database) -> None:
    text = await make_key(database, expires=LATER)

    assert await found(database, text) == "ci"
    assert await found(database, text, LATER) is None


async def test_a_key_is_valid_until_it_is_revoked(database: Database) -> None:
    text = await make_key(database)
    revoked = await keys.revoke(database, LATER, "ci")
    again = await keys.revoke(database, LATER + timedelta(days=1), "ci")

    assert revoked
    assert again
    assert revoked.revoked == again.revoked == LATER
    assert await found(database, text) is None


async def test_a_key_of_an_unknown_name_is_not_found(database: Database) -> None:
    assert await keys.revoke(database, NOW, "nobody") is None


async def test_the_name_of_a_revoked_key_cannot_be_reused(database: Database) -> None:
    await make_key(database)
    await keys.revoke(database, NOW, "ci")

    with pytest.raises(ConfigurationError, match="belongs to another key"):
        await make_key(database, seed=1)


@pytest.mark.parametrize("name", ["", "runstate", "anonymous", "a b", "x" * 101, "line\n"])
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a valid name"):
        keys.check_name(name)


async def test_one_statement_returns_which_keys_are_valid(database: Database) -> None:
    for seed, name in enumerate(("good", "expired", "revoked")):
        await make_key(database, name, seed, NOW if name == "expired" else None)
    await keys.revoke(database, NOW, "revoked")
    ids = {key.id: key.name for key in await keys.every_key(database)}

    good = await keys.still_good(database, NOW, [*ids, UUID(int=0)])

    assert [ids[each] for each in good] == ["good"]

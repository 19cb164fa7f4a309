"""Blocks over HTTP, on both databases: secrets at rest and in answers, keys, references."""

import asyncio
import json
import logging
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import structlog
from cryptography.exceptions import InvalidTag
from pydantic import SecretStr
from starlette.applications import Starlette

from runstate.core.blocks import MASK
from runstate.core.checks.secrets import DAMAGED, NO_KEY, verify_secrets
from runstate.core.keyring import Keyring, key_id, new_key, parse_keys
from runstate.core.rotation import rotate, used_keys
from runstate.database import Database
from runstate.errors import ConfigurationError, NoSecretKey
from runstate.rows import Base, BlockDocument
from runstate.secret_keys import keyring_of_secrets
from runstate.settings import Settings
from tests.client import Ask
from tests.conftest import SECRET_KEY
from tests.credentials import Keys, asking_with
from tests.graphql.mutations import PROBLEM, do
from tests.subscribing import listening

PLANTED = "planted-7f3c9a"
DATA = {"url": "u", "token": PLANTED, "headers": {"A": PLANTED}, "nested": {"list": [PLANTED]}}
FIELDS = {"title": "T", "secret_fields": ["token", "headers.*", "nested"]}
HIDDEN = {"url": "u", "token": "********", "headers": {"A": "********"}, "nested": "********"}
READ = "query($id: ID!) { it: blockDocument(by: {id: $id}) { data } }"
REVEAL = "query($id: ID!) { it: blockDocumentSecrets(by: {id: $id}) { data } }"


async def schema_of(ask: Ask, fields: Any) -> Any:
    """Create a block schema, with its type; return its id."""
    kind = await do(
        ask,
        "createBlockType",
        "CreateBlockTypeInput",
        f"{PROBLEM} ... on NameTaken {{ id }} ... on CreateBlockTypePayload {{ blockType {{ id }} }}",
        name="T",
        slug="t",
    )
    type_id = kind["id"] if kind["__typename"] == "NameTaken" else kind["blockType"]["id"]
    schema = await do(
        ask,
        "createBlockSchema",
        "CreateBlockSchemaInput",
        f"{PROBLEM} ... on CreateBlockSchemaPayload {{ blockSchema {{ id secretFields }} }}",
        blockTypeId=type_id,
        fields=fields,
    )
    return schema["blockSchema"]["id"]


async def make(
    ask: Ask, name: str = "d", data: Any = None, fields: Any = None, selection: str = "id data", **more: Any
) -> Any:
    """Create a block document, with its type and schema; return it or the problem."""
    made = await do(
        ask,
        "createBlockDocument",
        "CreateBlockDocumentInput",
        f"{PROBLEM} ... on CreateBlockDocumentPayload {{ blockDocument {{ {selection} }} }}",
        blockSchemaId=await schema_of(ask, fields or FIELDS),
        name=name,
        data=DATA if data is None else data,
        **more,
    )
    return made.get("blockDocument") or made


async def test_secrets_are_hidden_unless_they_are_revealed(ask: Ask) -> None:
    made = await make(ask)

    assert made["data"] == HIDDEN
    assert (await ask(READ, id=made["id"]))["it"]["data"] == HIDDEN
    assert (await ask("query($id: ID!) { node(id: $id) { ... on BlockDocument { data } } }", id=made["id"]))[
        "node"
    ] == {"data": HIDDEN}
    assert (await ask(REVEAL, id=made["id"]))["it"]["data"] == DATA


async def test_no_secret_is_in_the_database_or_in_the_logs(
    ask: Ask, app: Starlette, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        made = await make(ask)
        refused = await make(ask, data={"token": PLANTED, "a": {"$ref": {}, "b": PLANTED}})
        taken = await make(ask)
        assert (refused["__typename"], taken["__typename"]) == ("InvalidInput", "NameTaken")
        await ask(REVEAL, id=made["id"])
    database: Database = app.state.database
    async with database.read() as connection:
        stored = (await connection.execute(sa.select(*BlockDocument.__table__.columns))).all()

    for text in (str(stored), str(refused), str(taken), caplog.text, *capsys.readouterr()):
        assert PLANTED not in text


CREATE = "mutation($input: CreateBlockDocumentInput!) { createBlockDocument(input: $input) { __typename } }"


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (CREATE, {"input": {"blockSchemaId": "x", "data": {"token": PLANTED}, "unknown": 1}}),
        (CREATE, {"input": {"data": {"token": PLANTED}}}),
        (CREATE, {"input": PLANTED}),
        (f'mutation {{ createBlockDocument(input: {{data: {{token: "{PLANTED}"}}, x: 1}}) {{ __typename }} }}', {}),
        (
            'mutation($s: String) { createBlockDocument(input: {data: {t: $s}, blockSchemaId: "x"}) { __typename } }',
            {"s": {"a": PLANTED}},
        ),
    ],
)
async def test_an_invalid_request_does_not_show_its_secrets(
    ask: Ask, capsys: pytest.CaptureFixture[str], document: str, variables: dict[str, Any]
) -> None:
    body = await ask.raw(document, **variables)

    assert body["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    for text in (str(body), *capsys.readouterr()):
        assert PLANTED not in text


async def test_clear_text_needs_the_scope_secrets(url: str, database: Database) -> None:
    async with listening(url, authentication="keys") as server:
        for scope, may in (("admin", False), ("read secrets", True)):
            async with asking_with(server, await Keys(database).make(scope.replace(" ", "-"), scope)) as ask:
                body = await ask.raw(REVEAL, id="01890000-0000-7000-8000-000000000000")
            assert ("errors" not in body) is may, body


async def test_another_schema_shows_kept_secrets_only_with_the_scope_secrets(url: str, database: Database) -> None:
    update = """mutation($input: UpdateBlockDocumentInput!) { it: updateBlockDocument(input: $input) {
        ... on UpdateBlockDocumentPayload { blockDocument { data } } } }"""
    async with listening(url, authentication="keys", secret_keys=SecretStr(new_key())) as server:
        key = await Keys(database).make("program", "propose")
        async with asking_with(server, key) as ask:
            made = await make(ask, data={"token": PLANTED, "url": "u"})
            schema = await schema_of(ask, {"title": "open", "secret_fields": ["url"]})
            given = {"id": made["id"], "blockSchemaId": schema}
            answers = [
                await ask.raw(update, input={**given, **more})
                for more in ({}, {"data": {"url": "v"}}, {"data": {"token": "********"}})
            ]
            anew = await ask(update, input={**given, "data": {"token": "new"}})
        async with asking_with(server, await Keys(database).make("owner", "propose secrets")) as ask:
            other = await make(ask, "other", {"token": PLANTED})
            shown = await ask(update, input={"id": other["id"], "blockSchemaId": schema})

    assert [each["errors"][0]["extensions"]["code"] for each in answers[:2]] == ["FORBIDDEN"] * 2
    assert PLANTED not in str(answers)
    assert anew["it"]["blockDocument"]["data"] == {"token": "new", "url": "********"}
    assert shown["it"]["blockDocument"]["data"] == {"token": PLANTED}


async def test_a_number_with_many_digits_is_kept(ask: Ask) -> None:
    made = await make(ask, data={"token": 2**70, "url": 2**70})
    reply = await ask.client.post("/graphql", json={"query": REVEAL, "variables": {"id": made["id"]}})

    assert json.loads(reply.text)["data"]["it"]["data"] == {"token": 2**70, "url": 2**70}


async def test_documents_that_double_at_each_level_are_refused_when_they_are_read(ask: Ask) -> None:
    made = await make(ask, "d-0", {"url": "u"})
    for level in range(1, 40):
        nested = {"$ref": {"block_document_id": made["id"]}}
        made = await make(ask, f"d-{level}", {"a": nested, "b": nested}, selection="id")
    body = await ask.raw(READ, id=made["id"])

    assert body["errors"][0]["extensions"] | {"requestId": ""} == {
        "code": "LIMIT_EXCEEDED",
        "limit": "blocks",
        "allowed": 200,
        "requestId": "",
    }


async def test_secret_fields_that_are_added_at_the_same_time_are_all_added(ask: Ask) -> None:
    paths = [f"p{number}" for number in range(6)]
    await make(ask, data=dict.fromkeys(paths, PLANTED), fields={"title": "X", "secret_fields": []})
    ids = await asyncio.gather(*(schema_of(ask, {"title": "X", "secret_fields": [path]}) for path in paths))
    found = await ask("query($id: ID!) { it: blockSchema(by: {id: $id}) { secretFields } }", id=ids[0])

    assert len(set(ids)) == 1
    assert sorted(found["it"]["secretFields"]) == paths


async def test_without_a_key_no_secret_is_stored_and_the_reason_is_given(ask: Ask, app: Starlette) -> None:
    made = await make(ask)
    object.__setattr__(app.state.batcher.context, "keyring", Keyring())
    refused = await make(ask, "other")
    body = await ask.raw(READ, id=made["id"])

    assert (refused["__typename"], refused["path"]) == ("InvalidInput", ["data"])
    assert "RUNSTATE_SECRET_KEYS_FILE" in refused["message"]
    assert body["errors"][0]["extensions"]["code"] == "NO_SECRET_KEY"
    assert (await ask("query($id: ID!) { it: blockDocument(by: {id: $id}) { name } }", id=made["id"]))["it"] == {
        "name": "d"
    }


async def test_after_a_rotation_the_old_key_is_not_needed(ask: Ask, app: Starlette) -> None:
    context, database = app.state.batcher.context, app.state.database
    old, new = [parse_keys([new_key()])[0] for _ in range(2)]
    object.__setattr__(context, "keyring", Keyring([old]))
    made = [await make(ask, f"d-{number}") for number in range(3)]

    assert await rotate(database, Keyring([new, old])) == 3
    assert await rotate(database, Keyring([new, old])) == 0
    assert await used_keys(database) == {key_id(new): 3}
    object.__setattr__(context, "keyring", Keyring([new]))
    for each in made:
        assert (await ask(REVEAL, id=each["id"]))["it"]["data"] == DATA
    with pytest.raises(NoSecretKey):
        await rotate(database, Keyring())


async def test_a_secret_with_a_lost_key_does_not_stop_a_rotation(ask: Ask, app: Starlette) -> None:
    context, database = app.state.batcher.context, app.state.database
    lost, old, new = [parse_keys([new_key()])[0] for _ in range(3)]
    for number, key in enumerate((lost, old)):
        object.__setattr__(context, "keyring", Keyring([key]))
        await make(ask, f"d-{number}")

    assert await rotate(database, Keyring([new, old])) == 1
    assert await used_keys(database) == {key_id(lost): 1, key_id(new): 1}


def test_a_ciphertext_cannot_be_moved_to_another_document() -> None:
    ring = Keyring(parse_keys([new_key()]))
    text = ring.encrypt(PLANTED, "one")

    assert ring.decrypt(text, "one") == PLANTED
    with pytest.raises(InvalidTag):
        ring.decrypt(text, "another")
    assert PLANTED not in repr(ring)


def test_keys_come_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{new_key()}\n{new_key()}\n")
    file.chmod(0o644)
    settings = Settings(secret_keys_file=str(file), database_url=f"sqlite:///{tmp_path}/r.db")
    with pytest.raises(ConfigurationError, match="Others may read"):
        keyring_of_secrets(settings)
    file.chmod(0o600)

    assert len(keyring_of_secrets(settings).keys) == 2
    with pytest.raises(ConfigurationError, match="Key 1 is not one of 32 bytes") as refused:
        keyring_of_secrets(Settings(secret_keys=SecretStr(PLANTED)))
    assert PLANTED not in str(refused.value)


def test_a_server_with_sqlite_on_loopback_makes_a_key(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/r.db")
    first, second = keyring_of_secrets(settings), keyring_of_secrets(settings)

    assert first.newest is not None
    assert first.keys == second.keys
    assert (tmp_path / "r.db.key").stat().st_mode & 0o777 == 0o600
    assert keyring_of_secrets(Settings(database_url="postgresql://host/name")).newest is None


async def test_a_document_that_others_contain_is_deleted_only_by_force(ask: Ask) -> None:
    child = await make(ask, "child")
    parent = await make(ask, "parent", {"inner": {"$ref": {"block_document_id": child["id"]}}})
    delete = """mutation($id: ID!, $force: Boolean!) { it: deleteBlockDocument(id: $id, force: $force) {
        __typename ... on InUse { usedBy } } }"""

    assert (await ask(delete, id=child["id"], force=False))["it"] == {"__typename": "InUse", "usedBy": [parent["id"]]}
    assert (await ask(delete, id=child["id"], force=True))["it"]["__typename"] == "DeletePayload"
    assert (await ask(READ, id=parent["id"]))["it"]["data"] == {}


async def test_secret_fields_of_an_existing_schema_are_extended(ask: Ask) -> None:
    made = await make(ask, fields={"title": "T", "secret_fields": []}, data={"token": "t"})
    assert made["data"] == {"token": "t"}
    await make(ask, "other", fields={"title": "T", "secret_fields": ["token"]})

    assert (await ask(READ, id=made["id"]))["it"]["data"] == {"token": "********"}


async def test_a_page_of_documents_is_read_in_as_many_statements_as_one(ask: Ask, app: Starlette) -> None:
    database: Database = app.state.database

    async def statements(first: int) -> int:
        seen: list[str] = []

        def note(_: Any, __: Any, statement: str, *___: Any) -> None:
            # A new connection has statements of its own.
            if "block" in statement:
                seen.append(statement)

        engine = database.reader.sync_engine
        sa.event.listen(engine, "before_cursor_execute", note)
        found = await ask("query($n: Int) { blockDocuments(first: $n) { nodes { data } } }", n=first)
        sa.event.remove(engine, "before_cursor_execute", note)
        assert [each["data"] for each in found["blockDocuments"]["nodes"]] == [HIDDEN] * first
        return len(seen)

    for name in ("a", "b", "c"):
        await make(ask, name)

    assert await statements(3) == await statements(1)


async def test_a_document_with_a_lost_key_does_not_hide_the_others(ask: Ask, app: Starlette) -> None:
    lost, kept = [(await make(ask, name))["id"] for name in ("a", "b")]
    database: Database = app.state.database
    async with database.write() as transaction:
        moved = sa.update(BlockDocument).where(BlockDocument.id == sa.literal(UUID(lost)))
        await transaction.connection.execute(moved.values(ciphertext=Keyring([b"x" * 32]).encrypt({}, "")))
    body = await ask.raw(
        "query($ids: [ID!]!) { nodes(ids: $ids) { ... on BlockDocument { id data } } }", ids=[lost, kept]
    )

    assert [error["extensions"]["code"] for error in body["errors"]] == ["NO_SECRET_KEY"]
    (finding,) = await verify_secrets(database, Keyring(parse_keys([SECRET_KEY])))
    assert finding == f"{NO_KEY} (1): {lost}."


async def test_verify_finds_a_ciphertext_of_another_document(ask: Ask, app: Starlette) -> None:
    first, second = [(await make(ask, name))["id"] for name in ("a", "b")]
    database: Database = app.state.database
    assert await verify_secrets(database, Keyring(parse_keys([SECRET_KEY]))) == []
    async with database.write() as transaction:
        other = sa.select(BlockDocument.ciphertext).where(BlockDocument.id == sa.literal(UUID(first)))
        text = await transaction.connection.scalar(other)
        moved = sa.update(BlockDocument).where(BlockDocument.id == sa.literal(UUID(second))).values(ciphertext=text)
        await transaction.connection.execute(moved)

    assert await verify_secrets(database, Keyring(parse_keys([SECRET_KEY]))) == [f"{DAMAGED} (1): {second}."]


TYPED = {
    "title": "T",
    "properties": {"token": {"type": "string"}, "n": {"type": "integer"}, "other": {"$ref": "#/definitions/Other"}},
    "required": ["token", "other"],
    "secret_fields": ["token"],
}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"token": "t", "n": 1, "other": {}}, None),
        ({"token": [PLANTED], "other": {}}, ["data", "token"]),
        ({"token": PLANTED, "n": PLANTED, "other": {}}, ["data", "n"]),
        ({"n": 1, "other": {}}, ["data"]),
    ],
)
async def test_data_are_validated_against_the_schema_if_asked_for(
    ask: Ask, capsys: pytest.CaptureFixture[str], data: Any, path: list[str] | None
) -> None:
    fields = TYPED | {"definitions": {"Other": {"type": "object"}}}
    made = await make(ask, data=data, fields=fields, validate=True, selection="id")
    dry = await make(ask, "dry", data=data, fields=fields, validate=True, dryRun=True)

    assert ("id" in made, dry["__typename"]) == ((path is None), "InvalidInput" if path else dry["__typename"])
    if path:
        assert made["path"] == path
    for text in (str(made), *capsys.readouterr()):
        assert PLANTED not in text


async def test_nested_documents_and_kept_members_count_in_a_validation(ask: Ask) -> None:
    inner = (await make(ask, "inner"))["id"]
    nested = {"$ref": {"block_document_id": inner}}
    made = await make(ask, "outer", {"token": "t", "other": nested}, TYPED, "id", validate=True)
    fields = f"{PROBLEM} ... on UpdateBlockDocumentPayload {{ blockDocument {{ data }} }}"

    async def update(**data: Any) -> Any:
        return await do(
            ask, "updateBlockDocument", "UpdateBlockDocumentInput", fields, id=made["id"], data=data, validate=True
        )

    assert (await update(n=1))["blockDocument"]["data"] == {"token": "********", "n": 1, "other": HIDDEN}
    assert (await update(n="x"))["path"] == ["data", "n"]
    assert (await update(**dict.fromkeys(["token"], MASK)))["__typename"] == "UpdateBlockDocumentPayload"


async def test_each_use_of_secrets_is_logged_and_told_with_its_actor_and_documents(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = (await make(ask, "inner"))["id"]
    outer = (await make(ask, "outer", {"inner": {"$ref": {"block_document_id": inner}}}))["id"]
    capsys.readouterr()
    with structlog.testing.capture_logs() as logged:
        await ask(READ, id=outer)
        assert not [each for each in logged if each["event"] == "secrets_revealed"]
        await ask(REVEAL, id=outer)

    (record,) = [each for each in logged if each["event"] == "secrets_revealed"]
    assert (record["actor"], record["block_document_ids"]) == ("anonymous", sorted([inner, outer]))
    assert record["request_id"]
    revealed = """{ events(where: { name: { eq: "runstate.block-document.revealed" } }) { nodes {
      resource { resourceId name } related { resourceId } payload } } }"""
    (told,) = (await ask(revealed))["events"]["nodes"]
    assert told == {
        "resource": {"resourceId": f"runstate.block-document.{outer}", "name": "outer"},
        "related": [{"resourceId": f"runstate.block-document.{inner}"}],
        "payload": {"actor": "anonymous", "request_id": record["request_id"]},
    }


SECRETS = [f"s{number:04}-{token_hex(8)}" for number in range(1_000)]
PLACES = {"secret_fields": ["*"], "title": "P"}


async def dump(database: Database) -> str:
    """Return the text of all rows of all tables."""
    async with database.read() as connection:
        tables = Base.metadata.sorted_tables
        return "".join([str((await connection.execute(sa.select(*each.columns))).all()) for each in tables])


async def test_a_thousand_secrets_are_nowhere(
    ask: Ask, app: Starlette, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    database: Database = app.state.database
    pages = [SECRETS[start : start + 50] for start in range(0, 1_000, 50)]
    made, said = list[str](), list[str]()
    with caplog.at_level(logging.DEBUG):
        for number, page in enumerate(pages):
            data = {each[:5]: [each, {"deep": [each]}, each][int(each[1:5]) % 3] for each in page}
            document = await make(ask, f"d{number}", data, PLACES)
            made.append(document["id"])
            said.append(str(document))
            said.append(str(await make(ask, f"d{number}", data, PLACES)))
            said.append(str(await make(ask, "x", data | {"a": {"b": {"$ref": page[0]}}}, PLACES)))
            said.append(str(await ask.raw(CREATE, input={"data": data, "blockSchemaId": page[0], "name": page[1]})))
            said.append(str(await ask.raw(READ, id=document["id"])))
        nodes = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on BlockDocument { data references { id } } } }"
        said.append(str(await ask.raw(nodes, ids=made)))
        said.append(str(await ask.raw("{ blockDocuments(first: 200) { nodes { data blockSchema { fields } } } }")))
        for key in made:
            revealed = str(await ask(REVEAL, id=key))
            assert sum(each in revealed for each in SECRETS) == 50
    before = await dump(database)
    ring = Keyring([newer := b"n" * 32, *parse_keys([SECRET_KEY])])
    assert await rotate(database, ring) == len(made)
    after = await dump(database)

    texts = "".join([*said, before, after, caplog.text, *capsys.readouterr()])
    assert [each for each in SECRETS if each in texts] == []
    assert await verify_secrets(database, Keyring([newer])) == []

"""Operations on blocks."""

from typing import Any

from tests.oracle.stores import Answer, Step, Stores, operation

TYPE = {
    "name": "name",
    "slug": "slug",
    "logo_url": "logoUrl",
    "documentation_url": "documentationUrl",
    "description": "description",
    "code_example": "codeExample",
    "is_protected": "isProtected",
}
TYPE_FIELDS = " ".join(TYPE.values())
SCHEMA = "checksum fields capabilities version blockTypeId"
DOCUMENT = "name data isAnonymous blockTypeId blockSchemaId references { name referenceId }"


def _type(found: Answer) -> Answer:
    return {recorded: found[member] for recorded, member in TYPE.items()}


@operation
async def block_type(play: Stores, step: Step) -> Answer:
    """Create a block type."""
    given = {member: step[recorded] for recorded, member in TYPE.items() if recorded in step}
    return {"ok": True, **_type(await play.make({"as": "?", **step}, "BlockType", TYPE_FIELDS, given))}


@operation
async def read_block_type(play: Stores, step: Step) -> Answer:
    """Read a block type."""
    by = {"slug": step["slug"]} if "slug" in step else {"id": play.id(step["type"])}
    found = await play.ask(f"query($by: BlockTypeRef!) {{ it: blockType(by: $by) {{ {TYPE_FIELDS} }} }}", by=by)
    return {"block_type": found and _type(found)}


@operation
async def update_block_type(play: Stores, step: Step) -> Answer:
    """Update a block type."""
    given = {member: step[recorded] for recorded, member in TYPE.items() if recorded in step}
    await play.mutate("updateBlockType", "blockType { id }", {"id": play.id(step["type"]), **given})
    return {"ok": True}


@operation
async def delete_block_type(play: Stores, step: Step) -> Answer:
    """Delete a block type."""
    if "type" in step:
        key = play.id(step["type"])
    else:
        document = "query($slug: String!) { it: blockType(by: { slug: $slug }) { id } }"
        key = (await play.ask(document, slug=step["slug"]))["id"]
    await play.delete("BlockType", key)
    return {"ok": True}


@operation
async def block_types(play: Stores, step: Step) -> Answer:
    """List block types."""
    wanted, where = step["where"], list[Any]()
    if "name_like" in wanted:
        where.append({"name": {"contains": wanted["name_like"]}})
    if "slugs" in wanted:
        where.append({"slug": {"in": wanted["slugs"]}})
    if "capabilities" in wanted:
        where.append({"schemas": {"some": {"capabilities": {"all": wanted["capabilities"]}}}})
    pages, _ = await play.pages("blockTypes", "BlockType", "slug", where)
    return {"block_types": [each["slug"] for page in pages for each in page]}


def _schema(play: Stores, found: Answer) -> Answer:
    known = {"capabilities": sorted(found["capabilities"]), "type": play.name(found["blockTypeId"])}
    return {"fields": found["fields"], "version": found["version"], **known}


@operation
async def block_schema(play: Stores, step: Step) -> Answer:
    """Create a block schema, or find it."""
    given: Answer = {key: step[key] for key in ("fields", "capabilities", "version") if key in step}
    given["blockTypeId"] = play.id(step["type"])
    payload = await play.mutate("createBlockSchema", f"created blockSchema {{ id {SCHEMA} }}", given)
    made = payload["blockSchema"]
    same = play.name(made["id"])
    if same == "?" and "as" in step:
        play.ids[step["as"]] = made["id"]
    known = {"created": payload["created"], "same": None if same == "?" else same}
    return {"ok": True, **known, **_schema(play, made)}


@operation
async def read_block_schema(play: Stores, step: Step) -> Answer:
    """Read a block schema, by id or by checksum."""
    document = f"query($by: BlockSchemaRef!) {{ it: blockSchema(by: $by) {{ id {SCHEMA} }} }}"
    if "checksum_of" not in step:
        found = await play.ask(document, by={"id": play.id(step["schema"])})
        return {"block_schema": found and _schema(play, found)}
    checksum = (await play.ask(document, by={"id": play.id(step["checksum_of"])}))["checksum"]
    by: Answer = {"checksum": checksum}
    if "version" in step:
        by = {"checksumAndVersion": {"checksum": checksum, "version": step["version"]}}
    found = await play.ask(document, by=by)
    return {"schema": found and play.name(found["id"])}


@operation
async def checksum(play: Stores, step: Step) -> Answer:
    """Compute a checksum."""
    await play.make({"as": "c"}, "BlockType", "", {"name": f"C {play.nonce}", "slug": f"c{play.nonce}"})
    given = {"blockTypeId": play.ids["c"], "fields": step["fields"], "dryRun": True}
    return {"checksum": (await play.mutate("createBlockSchema", "checksum", given))["checksum"]}


@operation
async def delete_block_schema(play: Stores, step: Step) -> Answer:
    """Delete a block schema."""
    await play.delete("BlockSchema", play.id(step["schema"]))
    return {"ok": True}


@operation
async def block_schemas(play: Stores, step: Step) -> Answer:
    """List block schemas."""
    wanted, where = step["where"], list[Any]()
    if "type" in wanted:
        where.append({"blockTypeId": {"in": list(map(play.id, wanted["type"]))}})
    if "capabilities" in wanted:
        where.append({"capabilities": {"all": wanted["capabilities"]}})
    if "versions" in wanted:
        where.append({"version": {"in": wanted["versions"]}})
    if "ids" in wanted:
        where.append({"id": {"in": list(map(play.id, wanted["ids"]))}})
    pages, _ = await play.pages("blockSchemas", "BlockSchema", "id", where)
    return {"schemas": [play.name(each["id"]) for page in pages for each in page]}


@operation
async def capabilities(play: Stores, step: Step) -> Answer:
    """List capabilities."""
    return {"has": sorted(set(await play.ask("{ it: blockCapabilities }")).intersection(step["of"]))}


def _document(play: Stores, found: Answer, data: Any) -> Answer:
    # Names of anonymous documents are generated.
    name = "?" if found["isAnonymous"] and found["name"].startswith("anonymous-") else found["name"]
    return {
        "name": name,
        "data": data,
        "anonymous": found["isAnonymous"],
        "type": play.name(found["blockTypeId"]),
        "schema": play.name(found["blockSchemaId"]),
        "references": {each["name"]: play.name(each["referenceId"]) for each in found["references"]},
    }


@operation
async def block_document(play: Stores, step: Step) -> Answer:
    """Create a block document."""
    given: Answer = {key: step[key] for key in ("name", "data") if key in step}
    given["blockSchemaId"] = play.id(step["schema"])
    if "anonymous" in step:
        given["isAnonymous"] = step["anonymous"]
    made = await play.make({"as": "?", **step}, "BlockDocument", DOCUMENT, given)
    return {"ok": True, **_document(play, made, made["data"])}


@operation
async def read_block_document(play: Stores, step: Step) -> Answer:
    """Read a block document, with or without secrets."""
    if "document" in step:
        by: Answer = {"id": play.id(step["document"])}
    else:
        by = {"name": {"blockTypeSlug": step["slug"], "name": step["name"]}}
    if step.get("secrets"):
        fields = f"data document {{ {DOCUMENT} }}"
        document = f"query($by: BlockDocumentRef!) {{ it: blockDocumentSecrets(by: $by) {{ {fields} }} }}"
        found = await play.ask(document, by=by)
        return {"block_document": found and _document(play, found["document"], found["data"])}
    found = await play.ask(f"query($by: BlockDocumentRef!) {{ it: blockDocument(by: $by) {{ {DOCUMENT} }} }}", by=by)
    return {"block_document": found and _document(play, found, found["data"])}


@operation
async def update_block_document(play: Stores, step: Step) -> Answer:
    """Update a block document."""
    given: Answer = {key: step[key] for key in ("data", "merge") if key in step}
    given["id"] = play.id(step["document"])
    if "schema" in step:
        given["blockSchemaId"] = play.id(step["schema"])
    await play.mutate("updateBlockDocument", "blockDocument { id }", given)
    return {"ok": True}


@operation
async def delete_block_document(play: Stores, step: Step) -> Answer:
    """Delete a block document."""
    document = """mutation($id: ID!, $force: Boolean!) { it: deleteBlockDocument(id: $id, force: $force) {
        __typename ... on DeletePayload { deletedId } ... on Problem { code } } }"""
    await play.ask(document, id=play.id(step["document"]), force=step.get("force", False))
    return {"ok": True}


@operation
async def block_documents(play: Stores, step: Step) -> Answer:
    """List block documents."""
    wanted, where = step["where"], list[Any]()
    for key, condition in (
        ("names", lambda value: {"name": {"in": value}}),
        ("like", lambda value: {"name": {"contains": value}}),
        ("type", lambda value: {"blockTypeId": {"in": list(map(play.id, value))}}),
        ("ids", lambda value: {"id": {"in": list(map(play.id, value))}}),
        ("slugs", lambda value: {"blockType": {"slug": {"in": value}}}),
        ("capabilities", lambda value: {"blockSchema": {"capabilities": {"all": value}}}),
    ):
        if key in wanted:
            where.append(condition(wanted[key]))
    if wanted.get("anonymous") is True:
        where.append({"isAnonymous": {"eq": True}})
    anonymous = wanted.get("anonymous") in ("both", True)
    pages, count = await play.pages("blockDocuments", "BlockDocument", "id", where, anonymous=anonymous)
    names = [play.name(each["id"]) for page in pages for each in page]
    return {"documents": sorted(map(str, names)) if wanted.get("anonymous") == "both" else names, "count": count}


@operation
async def set_default_storage(play: Stores, step: Step) -> Answer:
    """Set or clear the default storage."""
    chosen = step["document"] and play.id(step["document"])
    await play.mutate("setDefaultResultStorage", "defaultResultStorage { id }", {"blockDocumentId": chosen})
    return {"ok": True}


@operation
async def default_storage(play: Stores, step: Step) -> Answer:
    """Read the default storage."""
    found = await play.ask("{ it: defaultResultStorage { id } }")
    return {"document": found and play.name(found["id"])}

"""Operations on saved searches."""

from tests.oracle.stores import Answer, Step, Stores, operation

SEARCH = "name filters { object property type operation value }"


@operation
async def save_search(play: Stores, step: Step) -> Answer:
    """Create a saved search, or replace its conditions."""
    given: Answer = {key: step[key] for key in ("name", "filters") if key in step}
    payload = await play.mutate("createSavedSearch", f"created savedSearch {{ id {SEARCH} }}", given)
    made = payload["savedSearch"]
    same = play.name(made["id"])
    if "as" in step:
        play.ids[step["as"]] = made["id"]
    return {
        "ok": True,
        "created": payload["created"],
        "same": None if same == "?" else same,
        **{key: made[key] for key in ("name", "filters")},
    }


@operation
async def read_search(play: Stores, step: Step) -> Answer:
    """Read a saved search."""
    document = f"query($id: ID!) {{ it: savedSearch(by: {{ id: $id }}) {{ {SEARCH} }} }}"
    return {"search": await play.ask(document, id=play.id(step["search"]))}


@operation
async def delete_search(play: Stores, step: Step) -> Answer:
    """Delete a saved search."""
    await play.delete("SavedSearch", play.id(step["search"]))
    return {"ok": True}


@operation
async def searches(play: Stores, step: Step) -> Answer:
    """List saved searches."""
    pages, _ = await play.pages("savedSearches", "SavedSearch", "name", [{"name": {"contains": play.nonce}}])
    return {"searches": [each["name"] for page in pages for each in page]}

"""The tables of the reference that are imported, in the order of their references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from runstate.core.commands.block_documents import about
from runstate.core.commands.logs import LONGEST_MESSAGE
from runstate.database.queries.orchestration import digest
from runstate.documents.deployments import Actor
from runstate.documents.policies import ConcurrencyOptions
from runstate.documents.pools import QueueFilter, WorkPoolStorageConfiguration
from runstate.documents.schedules import Schedule
from runstate.documents.searches import SavedSearchFilters
from runstate.imports.blocks import decrypted
from runstate.imports.facts import DEPLOYMENT
from runstate.imports.table import Columns, Field, Homeless, LeftOut, Raw, Table
from runstate.imports.values import document, instant, json, known_members, ordered, text, uuid
from runstate.rows import (
    Artifact,
    ArtifactCollection,
    BlockDocument,
    BlockDocumentReference,
    BlockSchema,
    BlockSchemaReference,
    BlockType,
    CacheEntry,
    ConcurrencyLimit,
    Deployment,
    DeploymentSchedule,
    Flow,
    FlowRun,
    FlowRunInput,
    Log,
    TaskRunState,
    Worker,
    WorkPool,
    WorkQueue,
)
from runstate.rows.saved_searches import SavedSearch
from runstate.rows.variables import Variable

if TYPE_CHECKING:
    from runstate.imports.importer import Importer

TEXT: Final = Field(text)
NUMBER: Final = Field(int)
FLAG: Final = Field(bool, default=False)
TIME: Final = Field(instant)
ID: Final = Field(uuid)
JSON: Final = Field(json)
OBJECT: Final = Field(json, default={})
LIST: Final = Field(json, default=[])
ACTOR: Final = document(Actor, known_members(Actor))
INTERVAL_SECONDS: Final = 30.0
"""Interval of the heartbeats of a worker that did not tell it."""


def reference(row: type[Any], source: str | None = None, *, needed: bool = False) -> Field:
    """Return a field that refers to a row."""
    return Field(uuid, source, refers=row, needed=needed)


def schedule_form(value: Any) -> Any:
    """Return a schedule in our form: the kind is told by its keys, and a time zone is always set."""
    zone = value.get("timezone") or "UTC"
    if "cron" in value:
        return {"kind": "cron", "cron": value["cron"], "day_or": value.get("day_or", True), "time_zone": zone}
    if "interval" in value:
        form = {"kind": "interval", "interval_seconds": value["interval"], "time_zone": zone}
        return form | ({"anchor": value["anchor_date"]} if value.get("anchor_date") else {})
    return {"kind": "rrule", "rrule": value["rrule"], "time_zone": zone}


def encrypt(importer: Importer, raw: Raw, row: Columns) -> None:
    """Encrypt the data of a block with our key."""
    data = decrypted(importer.facts.fernet, json(raw["data"]))
    # A dry run needs no key of the server.
    row["ciphertext"] = "" if importer.dry_run else importer.keyring.encrypt(data, about(row["id"]))


def mark_default(importer: Importer, raw: Raw, row: Columns) -> None:
    """Mark the default queue of a pool."""
    row["is_default"] = row["id"] in importer.facts.default_queues
    row["shows_pause"] = row["paused"]


def plan(importer: Importer, raw: Raw, row: Columns) -> None:
    """Have the scheduler look at an active schedule."""
    # The scheduler never looks at schedules of paused deployments.
    waits = row["active"] and uuid(raw["deployment_id"]) not in importer.facts.paused
    # Dates before the import are not caught up: the former server has created their runs.
    row["next_pass"], row["planned_until"] = (importer.now if waits else None), importer.now


def own(importer: Importer, raw: Raw, row: Columns) -> None:
    """Give a limit to the deployment whose id is in its name."""
    owner = row["name"].removeprefix(DEPLOYMENT)
    row["deployment_id"] = next(
        (each for each, limit in importer.facts.limit_of.items() if limit == row["id"] and str(each) == owner), None
    )
    if row["deployment_id"]:
        renamed = importer.renamed[Deployment].get(row["deployment_id"], row["deployment_id"])
        row["name"] = f"{DEPLOYMENT}{renamed}"


def prefer_global(importer: Importer, raw: Raw, row: Columns) -> None:
    """Leave out a limit of a tag that a global limit replaces."""
    if row["name"] in importer.facts.limit_names:
        raise LeftOut("a global limit of the same tag takes its place")


def parse(value: Any) -> Any:
    """Return the value of an input, which is stored as the text of JSON."""
    try:
        return json(value)
    # Programs could store any text as an input.
    except ValueError:
        return text(value)


def cut(importer: Importer, raw: Raw, row: Columns) -> None:
    """Cut off the end of a long message."""
    row["truncated"] = len(row["message"]) > LONGEST_MESSAGE
    row["message"] = row["message"][:LONGEST_MESSAGE]


def line(raw: Raw) -> UUID:
    """Return the id of a line, whose time decides about its retention."""
    return ordered(uuid(raw["id"]), instant(raw["timestamp"]))


def collect(importer: Importer, raw: Raw, row: Columns) -> None:
    """Put an artifact into its collection; leave out those that only hold the data of a state."""
    if (row["key"], row["type"], row["description"]) == (None, None, None):
        raise Homeless("data of states; the states have it")
    collection = importer.facts.collections.get(row["key"])
    row["collection_id"] = importer.renamed[ArtifactCollection].get(collection, collection) if collection else None


def shorten(importer: Importer, raw: Raw, row: Columns) -> None:
    """Compute the digest by which a cached result is found."""
    row["digest"] = digest(row["cache_key"])


def as_tag(value: Any) -> str:
    """Return the name of the limit of a tag."""
    return f"tag:{text(value)}"


def nesting(row: type[Any]) -> dict[str, Field]:
    """Return the columns of a table that says which rows of another one are nested in which."""
    sides = {f"{side}_id": f"{side}_{row.__tablename__}_id" for side in ("parent", "reference")}
    return {"name": TEXT, **{name: reference(row, source, needed=True) for name, source in sides.items()}}


LIMIT: Final = {"deployment_id": None, "drained": None, "occupied": 0}
NO_RATE: Final = {"active": True, "slot_decay_per_second": 0.0, "average_slot_occupancy_seconds": 2.0}
FEW: Final = (
    Table(
        "block_type",
        BlockType,
        dict.fromkeys(("slug", "name", "logo_url", "documentation_url", "description", "code_example"), TEXT)
        | {"is_protected": FLAG},
        key=("slug",),
    ),
    Table(
        "block_schema",
        BlockSchema,
        {
            "block_type_id": reference(BlockType, needed=True),
            "checksum": TEXT,
            "definition": Field(json, "fields", {}),
            "capabilities": LIST,
            "version": TEXT,
        },
        key=("block_type_id", "checksum", "version"),
    ),
    Table("block_schema_reference", BlockSchemaReference, nesting(BlockSchema)),
    Table(
        "block_document",
        BlockDocument,
        {
            "name": TEXT,
            "is_anonymous": FLAG,
            "block_type_id": reference(BlockType, needed=True),
            "block_type_name": Field(text, default=""),
            "block_schema_id": reference(BlockSchema, needed=True),
        },
        {"ciphertext": ""},
        key=("block_type_id", "name"),
        further=("data",),
        finish=encrypt,
    ),
    Table("block_document_reference", BlockDocumentReference, nesting(BlockDocument), key=("parent_id", "name")),
    Table("variable", Variable, {"name": TEXT, "value": JSON, "tags": LIST}, key=("name",)),
    Table(
        "saved_search",
        SavedSearch,
        {"name": TEXT, "filters": Field(document(SavedSearchFilters), default=[])},
        key=("name",),
    ),
    Table(
        "work_pool",
        WorkPool,
        {
            "name": TEXT,
            "type": TEXT,
            "description": TEXT,
            "base_job_template": OBJECT,
            "concurrency_limit": NUMBER,
            "paused": FLAG._replace(source="is_paused"),
            "storage_configuration": Field(
                document(WorkPoolStorageConfiguration, known_members(WorkPoolStorageConfiguration)),
                default=WorkPoolStorageConfiguration(),
            ),
        },
        {"online_until": None, "status_changed": None},
        key=("name",),
    ),
    Table(
        "work_queue",
        WorkQueue,
        {
            "work_pool_id": reference(WorkPool, needed=True),
            "name": TEXT,
            "description": Field(text, default=""),
            "priority": Field(int, default=1),
            "paused": FLAG._replace(source="is_paused"),
            "concurrency_limit": NUMBER,
            "filter": Field(document(QueueFilter, known_members(QueueFilter))),
            "last_polled": TIME,
        },
        {"shows_pause": False, "is_default": False},
        key=("work_pool_id", "name"),
        finish=mark_default,
    ),
    Table(
        "worker",
        Worker,
        {
            "work_pool_id": reference(WorkPool, needed=True),
            "name": TEXT,
            "last_heartbeat_time": TIME,
            "heartbeat_interval_seconds": Field(float, default=INTERVAL_SECONDS),
        },
        {"reported": None},
        key=("work_pool_id", "name"),
    ),
    Table("flow", Flow, {"name": TEXT, "tags": LIST, "labels": OBJECT}, key=("name",)),
    Table(
        "deployment",
        Deployment,
        {
            "name": TEXT,
            "flow_id": reference(Flow, needed=True),
            "concurrency_options": Field(document(ConcurrencyOptions, known_members(ConcurrencyOptions))),
            "paused": FLAG,
            "parameters": OBJECT,
            "tags": LIST,
            "work_queue_name": TEXT,
            "work_queue_id": reference(WorkQueue),
            "description": TEXT,
            "labels": OBJECT,
            "entrypoint": TEXT,
            "path": TEXT,
            "pull_steps": LIST,
            "parameter_schema": Field(json, "parameter_openapi_schema", {}),
            "enforce_parameter_schema": Field(bool, default=True),
            "job_variables": Field(json, "infra_overrides", {}),
            "version": TEXT,
            "last_polled": TIME,
            "created_by": Field(ACTOR),
            "updated_by": Field(ACTOR),
        },
        # Limits refer to deployments, and are imported next.
        {"concurrency_limit_id": None, "version_info": None},
        key=("flow_id", "name"),
    ),
    Table(
        "deployment_schedule",
        DeploymentSchedule,
        {
            "deployment_id": reference(Deployment, needed=True),
            "schedule": Field(document(Schedule, schedule_form)),
            "active": FLAG,
            "max_scheduled_runs": NUMBER,
            "parameters": OBJECT,
            "slug": TEXT,
        },
        {"revision": 0, "next_pass": None, "planned_until": None, "fault": None},
        key=("deployment_id", "slug"),
        finish=plan,
    ),
    Table(
        "concurrency_limit_v2",
        ConcurrencyLimit,
        {
            "name": TEXT,
            "limit": NUMBER,
            "active": FLAG,
            "slot_decay_per_second": Field(float, default=0.0),
            "average_slot_occupancy_seconds": Field(float, "avg_slot_occupancy_seconds", 2.0),
        },
        LIMIT,
        key=("name",),
        finish=own,
    ),
    Table(
        "concurrency_limit",
        ConcurrencyLimit,
        {"name": Field(as_tag, "tag"), "limit": Field(int, "concurrency_limit")},
        LIMIT | NO_RATE,
        key=("name",),
        finish=prefer_global,
    ),
)
"""Tables with few rows, which runs refer to."""
OF_RUNS: Final = (
    Table(
        "flow_run_input",
        FlowRunInput,
        {
            "flow_run_id": reference(FlowRun, needed=True),
            "key": TEXT,
            "value": Field(parse),
            "sender": TEXT,
        },
        key=("flow_run_id", "key"),
    ),
    Table(
        "artifact_collection",
        ArtifactCollection,
        {
            "key": TEXT,
            "latest_id": ID,
            "type": TEXT,
            "data": JSON,
            "description": TEXT,
            "metadata_": JSON,
            "flow_run_id": ID,
            "task_run_id": ID,
        },
        key=("key",),
    ),
    Table(
        "artifact",
        Artifact,
        {
            "key": TEXT,
            "type": TEXT,
            "data": JSON,
            "description": TEXT,
            "metadata_": JSON,
            "flow_run_id": ID,
            "task_run_id": ID,
        },
        {"collection_id": None},
        finish=collect,
    ),
    Table(
        "task_run_state_cache",
        CacheEntry,
        {
            "cache_key": TEXT,
            "expires": Field(instant, "cache_expiration"),
            "state_id": reference(TaskRunState, "task_run_state_id", needed=True),
        },
        {"digest": ""},
        finish=shorten,
    ),
    Table(
        "log",
        Log,
        {
            "logger": Field(text, "name"),
            "level": NUMBER,
            "message": TEXT,
            "timestamp": TIME,
            "flow_run_id": ID,
            "task_run_id": ID,
        },
        {"worker_id": None, "truncated": False},
        identify=line,
        finish=cut,
    ),
)
"""Tables whose rows belong to runs."""

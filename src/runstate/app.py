"""Construction of the application; its lifespan opens and closes the database, the feed and the services."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from secrets import token_bytes

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket
from uuid_utils.compat import uuid7

from runstate.core.access.allowlist import CHANNEL, AllowlistCache
from runstate.core.access.csrf import CsrfTokens
from runstate.core.actions.sending import Sender
from runstate.core.batch.batcher import Batcher
from runstate.core.scheduling.horizon import Horizon
from runstate.database.migrate import migrate
from runstate.database.queries.expiry import retention_settings
from runstate.exposure import (
    admit,
    check_exposure,
    initial_principal,
    is_loopback,
    keyring_of,
    middleware,
    serves_prefect,
    shows_pages,
)
from runstate.feed import Feed, HubSettings
from runstate.graphql.context import Context
from runstate.graphql.schema import build_schema
from runstate.graphql.transport.direct_route import DirectRoute
from runstate.graphql.transport.http import Endpoint
from runstate.graphql.transport.observability import Observer
from runstate.graphql.validation.limits import RequestLimits
from runstate.health import Health, paths
from runstate.measuring import Meter
from runstate.metrics import SHARED, Metrics
from runstate.prefect import front
from runstate.prefect.recorder import Recorder
from runstate.secret_keys import keyring_of_secrets
from runstate.services import claim_expiry, cleanup, heartbeats, late, log_retention
from runstate.services.runner import SERVICES, Runner, Service, chosen, timed
from runstate.settings import Settings, database_of
from runstate.tracing import tracing_of
from runstate.web.pages import GRAPHIQL, BrowserRedirect
from runstate.web.pages import routes as page_routes


def clock() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def build_app(settings: Settings) -> Starlette:
    """Return the application; its lifespan stores what it opens in `app.state`.

    Raise ConfigurationError if the settings name an unknown service or leave the server unprotected.
    """
    check_exposure(settings)
    meter = Meter(Metrics(shared_directory()), clock)
    tracing = tracing_of(os.environ, documents=settings.trace_documents)
    health = Health()
    services = chosen(settings.services, timed({**SERVICES, **set_services(settings)}, settings.service_intervals))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            database = database_of(settings)
            # Pushed first, so that it is closed last.
            opened.push_async_callback(database.close)
            if tracing:
                # In a thread, because sending the remaining spans blocks.
                opened.push_async_callback(asyncio.to_thread, tracing.close)
            # Without effect after `runstate serve`; needed if the application is started in another way.
            await migrate(database)
            hub_settings = HubSettings(slow_subscriber_timeout_seconds=settings.slow_subscriber_timeout_seconds)
            feed = Feed(database, hub_settings, meter.delivered)
            allowlist = AllowlistCache(database.keys, clock)
            feed.notifications.subscribe(CHANNEL, allowlist.has_news.set)
            await feed.start()
            opened.push_async_callback(feed.stop)
            batcher = Batcher(database, clock=clock, draw=random.random, new_id=uuid7)
            batcher.context = replace(
                batcher.context,
                keyring=keyring_of_secrets(settings),
                horizon=horizon_of(settings),
                sender=Sender(settings.action_allowed_networks),
                lines=feed.lines,
            )
            batcher.on_outcomes = meter.batch
            opened.push_async_callback(batcher.close)
            # Tokens must be unpredictable for attackers, unlike the random numbers of the batcher.
            app.state.csrf = CsrfTokens(database, clock, token_bytes, uuid7) if settings.csrf else None
            await allowlist.start()
            opened.push_async_callback(allowlist.stop)
            app.state.allowlist = allowlist
            app.state.credentials = keyring_of(settings, database, clock)
            if app.state.credentials:
                app.state.credentials.start()
                opened.push_async_callback(app.state.credentials.stop)
            runner = Runner(batcher, services, meter.round, feed.notifications.subscribe)
            runner.start()
            opened.push_async_callback(runner.stop)
            meter.start(database, feed.transitions, batcher)
            opened.push_async_callback(meter.stop)
            # Last: until here, `/readyz` answers that the server is starting.
            health.start(database, feed.transitions)
            opened.push_async_callback(health.stop)
            app.state.database, app.state.feed, app.state.batcher = database, feed, batcher
            app.state.recorder = recording(opened, batcher, meter)
            yield

    schema = meter.observe(build_schema(set_bounds(settings), plans=settings.plans))
    endpoint = Endpoint(
        schema, make_context, Observer(meter.metrics, tracing), allowed_origins=settings.allowed_origins
    )
    routes = [
        *(graphql_routes(endpoint, with_pages=shows_pages(settings))),
        *(page_routes() if shows_pages(settings) else ()),
        # Both forms, because redirects are switched off below.
        *(Route(path + slash, look) for path, look in paths(health).items() for slash in ("", "/")),
        *([Route("/metrics", meter.exposed)] if settings.metrics else []),
        *(front.routes(settings.max_body_bytes, meter.prefect, meter.unserved) if serves_prefect(settings) else ()),
    ]
    direct = Middleware(DirectRoute, path="/graphql", target=endpoint)
    app = Starlette(routes=routes, lifespan=lifespan, middleware=[*middleware(settings), direct])
    app.router.default = PlainTextResponse("Not Found", 404)  # Starlette closes WebSockets there with 403
    app.router.redirect_slashes = False  # Starlette redirects to absolute URLs, which are wrong behind a proxy
    app.state.health, app.state.in_flight = health, schema.in_flight
    app.state.public_url = settings.public_url and settings.public_url.rstrip("/")
    return app


def recording(opened: AsyncExitStack, batcher: Batcher, meter: Meter) -> Recorder:
    """Return the recorder of the events of Prefect's clients, started. It is closed first."""
    recorder = Recorder(batcher)
    recorder.dropped = meter.dropped
    recorder.start()
    opened.push_async_callback(recorder.close)
    return recorder


def horizon_of(settings: Settings) -> Horizon:
    """Return the dates of schedules that become runs."""
    return Horizon(
        settings.scheduler_min_runs,
        settings.scheduler_max_runs,
        timedelta(seconds=settings.scheduler_min_scheduled_seconds),
        timedelta(days=settings.scheduler_max_scheduled_days),
        timedelta(seconds=settings.scheduler_catch_up_seconds),
    )


def graphql_routes(endpoint: Endpoint, *, with_pages: bool) -> list[BaseRoute]:
    """Return the routes to the endpoint, with and without a trailing slash."""
    ways = {"/graphql": GRAPHIQL, "/graphql/": f"../{GRAPHIQL}"}
    return [
        *(Route(path, BrowserRedirect(endpoint, to) if with_pages else endpoint) for path, to in ways.items()),
        *(WebSocketRoute(path, endpoint) for path in ways),
    ]


def shared_directory() -> Path | None:
    """Return the directory in which workers share metrics, from prometheus_client's variable; None with one process."""
    named = os.environ.get(SHARED)
    return Path(named) if named else None


def set_services(settings: Settings) -> dict[str, Service]:
    """Return the services that have settings, bound to their values."""
    after = timedelta(seconds=settings.late_after_seconds)
    heartbeat_service = SERVICES["heartbeats"]
    # One for each of these services of the process: it knows the gaps between the rounds of its own service.
    attention, claims_attention = (
        heartbeats.Attention(settings.service_intervals.get(name, SERVICES[name].seconds))
        for name in ("heartbeats", "claim-expiry")
    )
    expire = partial(
        claim_expiry.run_once, attention=claims_attention, crash_running=settings.crash_runs_of_expired_claims
    )
    # Without a value, rows are kept forever.
    retention = {name: value for name in retention_settings() if (value := getattr(settings, name))}
    return {
        "heartbeats": replace(heartbeat_service, run_once=partial(heartbeats.run_once, attention=attention)),
        "claim-expiry": replace(SERVICES["claim-expiry"], run_once=expire),
        "late": replace(SERVICES["late"], run_once=partial(late.run_once, after=after)),
        "cleanup": replace(SERVICES["cleanup"], run_once=partial(cleanup.run_once, retention=retention)),
        "log-retention": replace(
            SERVICES["log-retention"], run_once=partial(log_retention.run_once, retention=retention)
        ),
    }


def set_bounds(settings: Settings) -> RequestLimits:
    """Return the limits on requests that the settings declare."""
    # Clients on other machines see neither the schema nor similar names by default.
    local = is_loopback(settings.host)
    return RequestLimits(
        body_bytes=settings.max_body_bytes,
        characters=settings.max_document_characters,
        tokens=settings.max_document_tokens,
        depth=settings.max_depth,
        aliases=settings.max_aliases,
        root_fields=settings.max_root_fields,
        directives=settings.max_directives,
        list_items=settings.max_list_items,
        cost=settings.max_cost,
        answer_bytes=settings.max_answer_bytes,
        errors=settings.max_validation_errors,
        operation_seconds=settings.operation_timeout_seconds,
        operations=settings.max_concurrent_operations,
        subscriptions=settings.max_subscriptions,
        socket_operations=settings.max_operations_per_socket,
        introspection=local if settings.introspection is None else settings.introspection,
        suggestions=local if settings.field_suggestions is None else settings.field_suggestions,
        preflight=settings.get_csrf_prevention,
    )


def url_of(connection: Request | WebSocket) -> str:
    """Return the public URL of the server, or the URL by which the client addressed it."""
    if public := connection.app.state.public_url:
        return str(public)
    url = connection.base_url
    return str(url.replace(scheme=url.scheme.replace("ws", "http"))).rstrip("/")


def make_context(connection: Request | WebSocket, request_id: str) -> Context:
    """Return the context of an operation."""
    state = connection.app.state
    context = Context(
        state.database,
        clock,
        request_id=request_id,
        principal=initial_principal(state.credentials, connection),
        batcher=state.batcher,
        feed=state.feed,
        csrf=state.csrf,
        admit=partial(admit, state.credentials, connection) if state.credentials else None,
    )
    context.find_url = partial(url_of, connection)
    context.address = getattr(connection.state, "address", None)
    return context

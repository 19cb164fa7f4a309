// The log of events: what happened to which resource, newest first, followed live; and what an event has set off.
import { useEffect, useState } from "preact/hooks";
import { Chips } from "./chips.tsx";
import { ask } from "./client.ts";
import { EventDocument, type EventQuery, EventsDocument, type EventsQuery } from "./documents.ts";
import { eventsWhere, FILTERS_OF_EVENTS, patternsOf } from "./event_filters.ts";
import { useCursor } from "./keyboard.ts";
import { Ago, At, Empty, isEmpty, Json, Listed, Loaded } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { href, place, setParams } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";
import { withFirstPage } from "./store.ts";

const PAGE = 50;

type Event = EventsQuery["events"]["nodes"][number];
type Named = Pick<Event["resource"], "resourceId" | "name">;
type Related = Pick<Event["related"][number], "resourceId" | "role">;

export function Events() {
  useTitle("Events");
  const { params } = useSignal(place);
  const where = eventsWhere(params);
  const key = JSON.stringify(where);
  const query = useQuery(EventsDocument, { where, first: PAGE, after: null }, { main: true, gap: 500, events: patternsOf(params) });
  const [rows, setRows] = useState<Event[]>([]);
  const [next, setNext] = useState<string | null>(null);
  useEffect(() => setRows([]), [key]);
  useEffect(() => {
    const page = query.data?.events;
    if (!page || query.stale) return;
    setRows((before) => {
      const joined = withFirstPage(before, page.nodes);
      if (joined.length === page.nodes.length) setNext(page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null);
      return joined;
    });
  }, [query.data, query.stale]);
  const more = async () => {
    const { events } = await ask(EventsDocument, { where, first: PAGE, after: next });
    setRows((before) => [...before, ...events.nodes]);
    setNext(events.pageInfo.hasNextPage ? events.pageInfo.endCursor : null);
  };
  const choose = (id: string | undefined) => setParams({ event: params.event === id ? undefined : id });
  const cursor = useCursor(
    rows.map(({ id }) => id),
    (index) => ({ Enter: () => choose(rows[index]?.id), Escape: () => choose(undefined) }),
  );
  const isListed = rows.some(({ id }) => id === params.event);
  return (
    <>
      <div class="line">
        <h1>Events</h1>
        <Chips params={params} filters={FILTERS_OF_EVENTS} />
      </div>
      {params.event && !isListed && <Details id={params.event} />}
      <Listed query={query} of={({ events }) => events.nodes} empty="No event matches.">
        {() => (
          <table class="events">
            <thead>
              <tr>
                <th scope="col">when</th>
                <th scope="col">event</th>
                <th scope="col">resource</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((event, index) => (
                <Row key={event.id} event={event} isCurrent={index === cursor} isOpen={event.id === params.event} open={() => choose(event.id)} />
              ))}
            </tbody>
          </table>
        )}
      </Listed>
      {next && (
        <button type="button" onClick={() => void more()}>
          {PAGE} older
        </button>
      )}
    </>
  );
}

type RowProps = { event: Event; isCurrent: boolean; isOpen: boolean; open: () => void };

function Row({ event, isCurrent, isOpen, open }: RowProps) {
  return (
    <>
      <tr class={isCurrent ? "is-current" : ""}>
        <td>
          <At time={event.occurred} precise />
        </td>
        <th scope="row">
          <button type="button" class="link" aria-expanded={isOpen} onClick={open}>
            {event.name}
          </button>
        </th>
        <td>
          <About resource={event.resource} related={event.related} />
        </td>
      </tr>
      {isOpen && (
        <tr>
          <td colSpan={3}>
            <Details id={event.id} />
          </td>
        </tr>
      )}
    </>
  );
}

/** An event with its resources and values, and the firings that it caused or that it tells of. */
function Details({ id }: { id: string }) {
  const query = useQuery(EventDocument, { id }, { events: ["runstate.automation.*"] });
  return (
    <Loaded query={query}>
      {({ event, automationFirings }) => (event ? <Shown event={event} firings={automationFirings.nodes} /> : <Empty>There is no event with this id. It may have expired.</Empty>)}
    </Loaded>
  );
}

type Firing = EventQuery["automationFirings"]["nodes"][number];

function Shown({ event, firings }: { event: NonNullable<EventQuery["event"]>; firings: readonly Firing[] }) {
  return (
    <section class="detail" aria-label={event.name}>
      <p class="line facts">
        <b>{event.name}</b>
        <span>
          received <Ago time={event.received} />
        </span>
        <a href={href(["events"], { name: event.name })}>all of this name</a>
        <a href={href(["events"], { resource: event.resource.resourceId })}>all of this resource</a>
        {event.follows && <a href={href(["events"], { event: event.follows })}>the event before</a>}
      </p>
      <ul class="firings-of" aria-label="Firings">
        {firings.map((firing) => (
          <li key={firing.id}>
            ⚡ {firing.eventId === event.id ? "fired" : "tells that"}{" "}
            {firing.automation ? <a href={href(["automations"], { name: firing.automation.name })}>{firing.automation.name}</a> : "a deleted automation"}{" "}
            {firing.eventId !== event.id && "fired "}
            <Ago time={firing.fired} />
            {firing.actionRuns.length > 0 && `: ${firing.actionRuns.map(({ status }) => status.toLowerCase()).join(", ")}`}
            {firing.eventId && firing.eventId !== event.id && (
              <>
                {" "}
                after <a href={href(["events"], { event: firing.eventId })}>its event</a>
              </>
            )}
          </li>
        ))}
      </ul>
      <dl class="facts-list">
        {[event.resource, ...event.related].map((resource) => (
          <div key={`${resource.role} ${resource.resourceId}`}>
            <dt>{resource.role ?? "resource"}</dt>
            <dd>
              <About resource={resource} related={event.related} /> <span class="faint">{resource.name ? resource.resourceId : ""}</span>
            </dd>
          </div>
        ))}
        {Object.entries(event.resource.labels as Record<string, string>).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value || <span class="faint">empty</span>}</dd>
          </div>
        ))}
      </dl>
      {!isEmpty(event.payload) && <Json value={event.payload} />}
    </section>
  );
}

/** A resource, linked to its view. */
function About({ resource, related }: { resource: Named; related: readonly Related[] }) {
  const { resourceId, name } = resource;
  const to = linkTo(resource, related);
  const text = name ?? resourceId;
  return to ? <a href={to}>{text}</a> : <>{text}</>;
}

const OURS = /^runstate\.([a-z-]+)\.(.+)$/;

function linkTo({ resourceId, name }: Named, related: readonly Related[]): string | undefined {
  const [, kind, id] = OURS.exec(resourceId) ?? [];
  if (!kind || !id) return undefined;
  if (kind === "flow-run") return href(["runs", id]);
  if (kind === "event") return href(["events"], { event: id });
  if (kind === "task-run") {
    const run = related.find(({ role }) => role === "flow-run")?.resourceId.replace("runstate.flow-run.", "");
    return run && href(["runs", run], { task: id });
  }
  if (kind === "work-pool" || kind === "work-queue") return href(["pools"]);
  if (!name) return undefined;
  if (kind === "flow") return href(["flows", name]);
  const view = { deployment: "deployments", automation: "automations", "concurrency-limit": "limits" }[kind];
  return view && href([view], { name });
}

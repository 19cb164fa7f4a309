// Small parts of the views.
import type { ComponentChildren } from "preact";
import type { Query } from "./query.ts";
import { clock, full, relative, utc } from "./format.ts";
import { useNow } from "./now.ts";
import { href } from "./router.ts";
import { useSignal } from "./signal.ts";
import { lookOf, toneOf } from "./states.ts";

type Stated = { stateType?: string | null; stateName?: string | null };

/** The state of a run: shape, colour and name. */
export function State({ run, short = false }: { run: Stated; short?: boolean }) {
  const look = lookOf(run.stateType);
  const name = run.stateName ?? look.label;
  return (
    <span class={`state ${toneOf(run.stateType)}`} title={name}>
      <i aria-hidden="true">{look.shape}</i>
      {short ? <span class="unseen">{name}</span> : <span>{name}</span>}
    </span>
  );
}

/** An instant as the time of day. */
export function At({ time, precise = false }: { time: string | null | undefined; precise?: boolean }) {
  const isUtc = useSignal(utc);
  if (!time) return <span class="faint">–</span>;
  return (
    <time dateTime={time} title={full(time)}>
      {clock(time, isUtc, precise)}
    </time>
  );
}

/** An instant relative to the present; it ticks. */
export function Ago({ time }: { time: string | null | undefined }) {
  const now = useNow();
  if (!time) return <span class="faint">–</span>;
  return (
    <time dateTime={time} title={full(time)}>
      {relative(time, now)}
    </time>
  );
}

type Named = { id: string; name: string; flow?: { name: string } | null };

export function RunLink({ run, flow = true }: { run: Named; flow?: boolean }) {
  return (
    <a href={href(["runs", run.id])} class="run-link">
      {flow && run.flow && <span class="faint">{run.flow.name} › </span>}
      {run.name}
    </a>
  );
}

/** Small squares, one for each run, oldest first; each is a link. */
export function Squares({ runs, label }: { runs: readonly (Named & Stated)[]; label: string }) {
  return (
    <ol class="squares" aria-label={label}>
      {runs.map((run) => (
        <li key={run.id}>
          <a href={href(["runs", run.id])} class={`square ${toneOf(run.stateType)}`} title={`${run.name}: ${run.stateName ?? ""}`}>
            <i aria-hidden="true">{lookOf(run.stateType).shape}</i>
            <span class="unseen">
              {run.name}: {run.stateName}
            </span>
          </a>
        </li>
      ))}
    </ol>
  );
}

/** Shows the view of an answer; before it, that it is loading; an error with its message. */
export function Loaded<Data>({ query, children }: { query: Query<Data>; children: (data: Data) => ComponentChildren }) {
  const { data, error } = query;
  if (data === undefined && error) return <Problem message={error.message} />;
  if (data === undefined) return <p class="loading">Loading …</p>;
  return (
    <>
      {error && error.code !== "LOST" && <Problem message={error.message} />}
      {children(data)}
    </>
  );
}

type ListedProps<Data, Each> = {
  query: Query<Data>;
  of: (data: Data) => readonly Each[];
  empty: ComponentChildren;
  children: (list: readonly Each[], data: Data) => ComponentChildren;
};

/** Shows the list of an answer, or why there is nothing in it. */
export function Listed<Data, Each>({ query, of, empty, children }: ListedProps<Data, Each>) {
  return (
    <Loaded query={query}>
      {(data) => {
        const list = of(data);
        return list.length ? children(list, data) : <Empty>{empty}</Empty>;
      }}
    </Loaded>
  );
}

type Item = { id: string; name: string };
type ItemsProps<Data, Each> = {
  query: Query<Data>;
  of: (data: Data) => readonly Each[];
  empty: ComponentChildren;
  /** The name in the address: its item is marked, and is the first. */
  name?: string | undefined;
  children: (item: Each) => ComponentChildren;
};

/** Shows the list of an answer as one item below the other. */
export function Items<Data, Each extends Item>({ query, of, empty, name, children }: ItemsProps<Data, Each>) {
  return (
    <Listed query={query} of={of} empty={empty}>
      {(list) => (
        <ul class="items">
          {[...list]
            .sort((a, b) => Number(b.name === name) - Number(a.name === name))
            .map((item) => (
              <li key={item.id} class={item.name === name ? "is-current" : ""}>
                {children(item)}
              </li>
            ))}
        </ul>
      )}
    </Listed>
  );
}

export const Problem = ({ message }: { message: string }) => (
  <p class="problem" role="alert">
    {message}
  </p>
);

export const Empty = ({ children }: { children: ComponentChildren }) => <p class="empty">{children}</p>;

export function Json({ value }: { value: unknown }) {
  return (
    <pre class="json" tabIndex={0}>
      {JSON.stringify(value, null, 2)}
    </pre>
  );
}

export const isEmpty = (value: unknown) =>
  value === null || value === undefined || (typeof value === "object" && Object.keys(value).length === 0);

/** A short text of a JSON object: {region: north} */
export function brief(value: unknown): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(brief).join(", ")}]`;
  return Object.entries(value)
    .map(([key, each]) => `${key}: ${typeof each === "string" ? each : brief(each)}`)
    .join(", ");
}

export function Tags({ tags }: { tags: readonly string[] }) {
  return (
    <span class="tags">
      {tags.map((tag) => (
        <a key={tag} class="tag" href={href(["runs"], { tag })}>
          {tag}
        </a>
      ))}
    </span>
  );
}

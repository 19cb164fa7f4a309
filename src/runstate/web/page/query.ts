// The hook with which a view reads: it asks once, and again only if something has changed.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Asked, ask, follow, type GraphQLError } from "./client.ts";
import { NewEventsDocument, type TypedDocumentString } from "./documents.ts";
import { anew, FORGOTTEN, onChanges, position, standing } from "./live.ts";
import { Refresher } from "./refresher.ts";
import { Signal } from "./signal.ts";
import type { Change } from "./store.ts";

/** The query of the view that is shown, for "open in GraphiQL". */
export const shown = new Signal<Asked | undefined>(undefined);

export type Query<Data> = { data?: Data; error?: GraphQLError; stale: boolean; reload: () => void };
export type Options = {
  /** Whether the answer may be another one after a change. Without it, the view is read anew only after a break. */
  matters?: (change: Change) => boolean;
  /** Patterns of names: the answer may be another one after such an event. An empty list matches every event. */
  events?: readonly string[];
  /** The least time between two requests, in milliseconds. */
  gap?: number;
  skip?: boolean;
  /** Whether "open in GraphiQL" shows this query. */
  main?: boolean;
  /** What the answer depends on, if the variables are computed when they are sent. */
  key?: string;
};

export function useQuery<Data, Variables extends object>(
  document: TypedDocumentString<Data, Variables>,
  variables: Variables | (() => Variables),
  options: Options = {},
): Query<Data> {
  const { gap = 1000, skip = false, main = false } = options;
  const events = options.events && JSON.stringify(options.events);
  const key = options.key ?? JSON.stringify(variables);
  const [answer, setAnswer] = useState<{ data?: Data; error?: GraphQLError; key?: string }>({});
  const newest = useRef({ variables, matters: options.matters });
  newest.current = { variables, matters: options.matters };
  const refresher = useRef<Refresher | undefined>(undefined);
  useEffect(() => {
    if (skip) return;
    const job = async (isCurrent: () => boolean) => {
      await standing;
      if (!isCurrent()) return;
      const { variables } = newest.current;
      const asked = typeof variables === "function" ? variables() : variables;
      if (main) shown.set({ query: String(document), variables: asked });
      try {
        const data = await ask(document, asked);
        if (isCurrent()) setAnswer({ data, key });
      } catch (error) {
        if (isCurrent()) setAnswer((before) => ({ ...before, error: error as GraphQLError }));
      }
    };
    const mine = new Refresher(job, gap);
    refresher.current = mine;
    mine.now();
    const offs = [
      anew.listen(mine.touch),
      onChanges((changes) => {
        if (newest.current.matters && changes.some(newest.current.matters)) mine.touch();
      }),
      ...(events ? [followEvents(JSON.parse(events), mine.touch)] : []),
    ];
    globalThis.document.addEventListener("visibilitychange", mine.resume);
    return () => {
      mine.stop();
      for (const off of offs) off();
      globalThis.document.removeEventListener("visibilitychange", mine.resume);
    };
  }, [document, key, skip, events]);
  return { ...answer, stale: answer.key !== key, reload: () => refresher.current?.touch() };
}

/** Call a function after events of these names. Returns a function that ends it. */
function followEvents(names: string[], touch: () => void): () => void {
  let cursor: string | undefined;
  return follow(
    NewEventsDocument,
    async () => {
      await standing;
      // Cursors of transitions and of events are the same.
      return { after: cursor ?? position(), match: { names } };
    },
    ({ events }) => {
      cursor = events.cursor;
      if (events.events.length) touch();
    },
    ({ code }) => {
      if (FORGOTTEN.has(code)) cursor = undefined;
    },
  );
}

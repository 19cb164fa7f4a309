// The stream of transitions: it fills the store, and tells the views once a frame.
import { ask, follow, type GraphQLError } from "./client.ts";
import { TransitionsDocument, ViewerDocument, type ViewerQuery } from "./documents.ts";
import { Signal } from "./signal.ts";
import { type Change, Store } from "./store.ts";

const TICKER = 2000; // transitions that the drawer keeps
const HIDDEN = 250; // milliseconds between two updates of a page that nobody sees
/** Codes of errors that say that a cursor is of no use any more. */
export const FORGOTTEN: ReadonlySet<string> = new Set(["CURSOR_EXPIRED", "INVALID_INPUT"]);

export const store = new Store();
export const viewer = new Signal<ViewerQuery["viewer"] | undefined>(undefined);
/** Counts the updates of the store; views that show runs listen to it. */
export const tick = new Signal(0);
/** Counts the breaks after which everything is read anew. */
export const anew = new Signal(0);
export const paused = new Signal(false);
export const ticker: Change[] = [];

type Listener = (changes: readonly Change[]) => void;
const listeners = new Set<Listener>();
let waiting: Change[] = [];
let scheduled = false;
let cursor: string | undefined;
let settle = () => {};
/** Resolved once the position in the log is known, or known to be out of reach. What is read later misses nothing. */
export const standing = new Promise<void>((resolve) => {
  settle = resolve;
});

export function onChanges(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function receive(changes: readonly Change[]): void {
  if (!changes.length) return;
  waiting.push(...changes);
  if (scheduled || paused.value) return;
  scheduled = true;
  if (document.hidden) setTimeout(flush, HIDDEN);
  else requestAnimationFrame(flush);
}

function flush(): void {
  scheduled = false;
  const changes = store.apply(waiting);
  waiting = [];
  if (!changes.length) return;
  ticker.push(...changes);
  if (ticker.length > TICKER) ticker.splice(0, ticker.length - TICKER);
  for (const listener of [...listeners]) listener(changes);
  tick.set(tick.value + 1);
}

export function setPaused(isPaused: boolean): void {
  paused.set(isPaused);
  if (!isPaused && waiting.length) flush();
}

export const held = () => waiting.length;

/** The place in the log where the page stands: the ticker keeps it as "since I last looked". */
export const position = () => cursor;

/** Begin to follow the log. Queries of views that are sent later have seen at least what is before the cursor. */
export async function begin(): Promise<void> {
  const known = await ask(ViewerDocument, {}).finally(settle);
  viewer.set(known.viewer);
  cursor = known.transitionCursor;
  let broken = false;
  follow(
    TransitionsDocument,
    () => ({ after: cursor }),
    ({ transitions }) => {
      cursor = transitions.cursor;
      receive(transitions.transitions);
      if (broken) anew.set(anew.value + 1);
      broken = false;
    },
    async (error) => {
      broken = true;
      if (FORGOTTEN.has(error.code)) await restart(error);
    },
  );
}

async function restart(_: GraphQLError): Promise<void> {
  try {
    cursor = (await ask(ViewerDocument, {})).transitionCursor;
  } catch {
    // The next attempt asks again.
  }
}

// The drawer Live: every transition as it is committed, with the place where the user last looked.
import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ask } from "./client.ts";
import { MissedDocument, type MissedQuery, RunNamesDocument } from "./documents.ts";
import { useKeys } from "./keyboard.ts";
import { paused, position, setPaused, tick, ticker } from "./live.ts";
import { At, State } from "./parts.tsx";
import { href } from "./router.ts";
import { Dialog, opened } from "./shell.tsx";
import { useSignal } from "./signal.ts";
import type { Change } from "./store.ts";

const LOOKED = "runstate.looked"; // storage key of the cursor up to which transitions were seen
const MISSED = 5; // requests for what was missed
const DRAWN = 100; // rows that are drawn
const NAMES = 2000; // names that are kept

type Name = { label: string; to: string };
const names = new Map<string, Name>();

export function Drawer() {
  useSignal(tick);
  useKeys({ Escape: () => opened.set(undefined) });
  const isPaused = useSignal(paused);
  const [kind, setKind] = useState("all");
  const [text, setText] = useState("");
  const missed = useMissed();
  const newestFirst = newest([ticker, missed.changes], DRAWN, (change) => matches(change, kind, text));
  useNames(newestFirst);
  return (
    <Dialog title="Live" side close={() => opened.set(undefined)}>
      <div class="line">
        <select aria-label="Transitions" value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
          <option value="all">all</option>
          <option value="FLOW_RUN">flow runs</option>
          <option value="TASK_RUN">task runs</option>
          <option value="bad">failures</option>
        </select>
        <input aria-label="Filter" placeholder="name or state" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <button type="button" onClick={() => setPaused(!isPaused)} aria-pressed={isPaused}>
          {isPaused ? "Continue" : "Pause"} <kbd>.</kbd>
        </button>
      </div>
      <ol class="ticker">
        {newestFirst.map((change, index) => (
          <li key={`${change.runId}${change.version}`} class={change === missed.changes.at(-1) && index > 0 ? "is-seen" : ""}>
            {rowOf(change)}
          </li>
        ))}
      </ol>
      {!newestFirst.length && <p class="empty">Nothing has happened since you last looked.</p>}
    </Dialog>
  );
}

/** The newest matching changes of lists, of which the first is the newest. Looks at no more than it needs. */
export function newest(lists: readonly (readonly Change[])[], count: number, matches: (change: Change) => boolean): Change[] {
  const found: Change[] = [];
  for (const list of lists) {
    for (let at = list.length - 1; at >= 0 && found.length < count; at -= 1) {
      const change = list[at];
      if (change && matches(change)) found.push(change);
    }
  }
  return found;
}

/** The transitions between the last look and the opening of the page. */
function useMissed(): { changes: readonly Change[] } {
  const [changes, setChanges] = useState<Change[]>([]);
  useEffect(() => {
    let isShown = true;
    const first = ticker[0];
    missedSince(localStorage.getItem(LOOKED)).then(
      (found) => isShown && setChanges(found.filter(({ occurred }) => !first || occurred < first.occurred)),
      () => {}, // an old cursor has expired: nothing is known about the time before
    );
    return () => {
      isShown = false;
      const cursor = position();
      if (cursor) localStorage.setItem(LOOKED, cursor);
    };
  }, []);
  return { changes };
}

async function missedSince(cursor: string | null): Promise<Change[]> {
  const found: Change[] = [];
  let after = cursor;
  for (let request = 0; after && request < MISSED; request += 1) {
    const { transitions }: MissedQuery = await ask(MissedDocument, { after });
    found.push(...transitions.transitions);
    after = transitions.hasMore ? transitions.cursor : null;
  }
  return found;
}

type Drawn = { label: string | undefined; row: VNode };
const drawn = new WeakMap<Change, Drawn>();

/** The content of a row. An unchanged row is the same object, which is not drawn again. */
function rowOf(change: Change): VNode {
  const label = names.get(change.runId)?.label;
  const before = drawn.get(change);
  if (before && before.label === label) return before.row;
  const row = (
    <>
      <At time={change.occurred} precise />
      <State run={change} />
      <Who change={change} />
      {change.message && <q class="message">{change.message}</q>}
    </>
  );
  drawn.set(change, { label, row });
  return row;
}

function matches(change: Change, kind: string, text: string): boolean {
  if (kind === "bad" && change.stateType !== "FAILED" && change.stateType !== "CRASHED") return false;
  if (kind.endsWith("_RUN") && change.runKind !== kind) return false;
  const words = `${change.stateName} ${names.get(change.runId)?.label ?? ""} ${change.message ?? ""}`;
  return words.toLowerCase().includes(text.trim().toLowerCase());
}

function Who({ change }: { change: Change }) {
  const known = names.get(change.runId);
  const to = change.runKind === "FLOW_RUN" ? href(["runs", change.runId]) : href(["runs", change.flowRunId ?? ""], { task: change.runId });
  return <a href={to}>{known?.label ?? `${change.runId.slice(0, 8)}…`}</a>;
}

/** Look up the names of runs that are new, in one request at a time. */
function useNames(changes: readonly Change[]): void {
  const [, render] = useState(0);
  const busy = useRef(false);
  const unknown = changes.filter(({ runId }) => !names.has(runId)).slice(0, 100);
  useEffect(() => {
    if (busy.current || !unknown.length) return;
    busy.current = true;
    lookUp(unknown).finally(() => {
      busy.current = false;
      render((count) => count + 1);
    });
  });
}

async function lookUp(changes: readonly Change[]): Promise<void> {
  const of = (kind: string) => [...new Set(changes.filter(({ runKind }) => runKind === kind).map(({ runId }) => runId))];
  // Names that are not found are not asked for again.
  for (const { runId } of changes) names.set(runId, { label: `${runId.slice(0, 8)}…`, to: "" });
  const { flowRuns, taskRuns } = await ask(RunNamesDocument, {
    flowRuns: { id: { in: of("FLOW_RUN") } },
    taskRuns: { id: { in: of("TASK_RUN") } },
    some: true,
  });
  for (const { id, name, flow } of flowRuns.nodes) names.set(id, { label: `${flow.name} › ${name}`, to: "" });
  for (const { id, name, flowRun } of taskRuns?.nodes ?? []) names.set(id, { label: flowRun ? `${flowRun.flow.name} › ${flowRun.name} › ${name}` : name, to: "" });
  for (const id of names.keys()) {
    if (names.size <= NAMES) break;
    names.delete(id);
  }
}

// Rows of an answer in their newest known state.
import { useEffect, useMemo, useState } from "preact/hooks";
import { onChanges, store } from "./live.ts";
import type { Change, RunState } from "./store.ts";

/** Render again when a change concerns one of the runs. */
export function useStored<Run extends RunState>(rows: readonly Run[]): Run[] {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const ids = new Set(rows.map(({ id }) => id));
    return onChanges((changes) => {
      if (changes.some(({ runId }) => ids.has(runId))) setChanges((count) => count + 1);
    });
  }, [rows]);
  return useMemo(() => rows.map((row) => store.newest(row)), [rows, changes]);
}

/** The changes since an answer of the server, of all runs or of those that matter. */
export function useChangesSince(answer: unknown, matters: (change: Change) => boolean = () => true): Change[] {
  const [changes, setChanges] = useState<Change[]>([]);
  useEffect(() => setChanges((before) => (before.length ? [] : before)), [answer]);
  useEffect(
    () =>
      onChanges((all) => {
        const ours = all.filter(matters);
        if (ours.length) setChanges((before) => [...before, ...ours]);
      }),
    [],
  );
  return changes;
}

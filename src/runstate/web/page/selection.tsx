// Selected runs, and what can be done with all of them.
import { may } from "./rights.ts";
import { bulk } from "./doing.ts";
import { plural } from "./format.ts";
import type { FlowRunWhere } from "./documents.ts";
import { Signal, useSignal } from "./signal.ts";

export const selection = new Signal<ReadonlySet<string>>(new Set());

export function toggled(set: ReadonlySet<string>, id: string): Set<string> {
  const next = new Set(set);
  if (!next.delete(id)) next.add(id);
  return next;
}

export function Selected({ where, total, rows }: { where: FlowRunWhere; total: number | undefined; rows: readonly { id: string }[] }) {
  const chosen = useSignal(selection);
  const rights = useSignal(may);
  if (!chosen.size) return null;
  const these: FlowRunWhere = { id: { in: [...chosen] } };
  const ask = (verb: "retry" | "cancel" | "delete", condition: FlowRunWhere, count: number) => () => bulk.set({ verb, where: condition, count });
  return (
    <aside class="selected" aria-label="Selected runs">
      <b>{plural(chosen.size, "run")} selected</b>
      {rights.propose && (
        <>
          <button type="button" onClick={ask("retry", these, chosen.size)}>
            Retry …
          </button>
          <button type="button" onClick={ask("cancel", these, chosen.size)}>
            Cancel …
          </button>
        </>
      )}
      {rights.admin && (
        <button type="button" onClick={ask("delete", these, chosen.size)}>
          Delete …
        </button>
      )}
      {rights.propose && total !== undefined && total > chosen.size && (
        <button type="button" onClick={ask("retry", where, total)}>
          Retry all {total.toLocaleString("en")} that match …
        </button>
      )}
      <button type="button" onClick={() => download(rows.filter(({ id }) => chosen.has(id)))}>
        Export JSON
      </button>
      <button type="button" class="small" onClick={() => selection.set(new Set())}>
        Clear
      </button>
    </aside>
  );
}

function download(rows: readonly object[]): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(rows, null, 2)], { type: "application/json" }));
  link.download = "runs.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

// Selected runs, and what can be done with all of them.
import { may } from "./rights.ts";
import { bulk, type Verb } from "./doing.ts";
import { plural } from "./format.ts";
import type { FlowRunWhere } from "./documents.ts";
import { Signal, useSignal } from "./signal.ts";

export const selection = new Signal<ReadonlySet<string>>(new Set());

export function toggled(set: ReadonlySet<string>, id: string): Set<string> {
  const next = new Set(set);
  if (!next.delete(id)) next.add(id);
  return next;
}

type Props = { where: FlowRunWhere; total: number | undefined; rows: readonly { id: string }[] };

/** Actions on the selected runs, or on all that match the filter. */
export function Selected({ where, total, rows }: Props) {
  const chosen = useSignal(selection);
  const rights = useSignal(may);
  const isFiltered = Object.keys(where).length > 0;
  if (!chosen.size && !(isFiltered && total && rights.propose)) return null;
  const these: FlowRunWhere = chosen.size ? { id: { in: [...chosen] } } : where;
  const count = chosen.size || (total ?? 0);
  const start = (verb: Verb, condition = these, number = count) => () => bulk.set({ verb, where: condition, count: number });
  return (
    <section class="selected" aria-label="Actions on runs">
      <b>{chosen.size ? `${plural(count, "run")} selected` : `All ${count.toLocaleString("en")} that match`}</b>
      {rights.propose && (
        <>
          <button type="button" onClick={start("retry")}>
            Retry … <kbd>{chosen.size ? "r" : "R"}</kbd>
          </button>
          <button type="button" onClick={start("cancel")}>
            Cancel … <kbd>{chosen.size ? "c" : "C"}</kbd>
          </button>
        </>
      )}
      {rights.admin && (
        <button type="button" onClick={start("delete")}>
          Delete …
        </button>
      )}
      {chosen.size > 0 && (
        <>
          {rights.propose && isFiltered && total !== undefined && total > count && (
            <button type="button" onClick={start("retry", where, total)}>
              Retry all {total.toLocaleString("en")} that match …
            </button>
          )}
          <button type="button" onClick={() => download(rows.filter(({ id }) => chosen.has(id)))}>
            Export JSON
          </button>
          <button type="button" class="small" onClick={() => selection.set(new Set())}>
            Clear
          </button>
        </>
      )}
    </section>
  );
}

function download(rows: readonly object[]): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(rows, null, 2)], { type: "application/json" }));
  link.download = "runs.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

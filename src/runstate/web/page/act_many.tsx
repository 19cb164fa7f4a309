// The dialog for many runs: a dry run says what will happen; then it is done, batch after batch.
import { useEffect, useState } from "preact/hooks";
import { Form } from "./act.tsx";
import { mutate } from "./client.ts";
import { CancelManyDocument, DeleteManyDocument, RetryManyDocument, type RetryManyMutation } from "./documents.ts";
import { type Bulk, bulk, type Verb } from "./doing.ts";
import { plural } from "./format.ts";
import { selection } from "./selection.tsx";
import { Dialog } from "./shell.tsx";

type Operation = Extract<RetryManyMutation["result"], { __typename: "BulkOperation" }>;

const DOCUMENTS = { retry: RetryManyDocument, cancel: CancelManyDocument, delete: DeleteManyDocument } as const;
const LABELS: Record<Verb, string> = { retry: "Retry", cancel: "Cancel", delete: "Delete" };
const WILL: Record<Verb, string> = { retry: "will run again", cancel: "will be cancelled", delete: "will be deleted" };
const DONE: Record<Verb, string> = { retry: "run again", cancel: "were cancelled or are being cancelled", delete: "were deleted" };

export function BulkDialog({ verb, where, count }: Bulk) {
  const [dry, setDry] = useState<Operation>();
  const [done, setDone] = useState<Operation[]>([]);
  const [problem, setProblem] = useState("");
  const close = () => bulk.set(undefined);
  const send = async (dryRun: boolean, after: string | null): Promise<Operation | undefined> => {
    const { result } = await mutate(DOCUMENTS[verb] as typeof RetryManyDocument, { where, dryRun, after });
    if (result.__typename === "BulkOperation") return result;
    setProblem(result.message);
    return undefined;
  };
  useEffect(() => {
    send(true, null).then(setDry, (error: Error) => setProblem(error.message));
  }, []);
  useEffect(() => document.querySelector<HTMLElement>("dialog .primary")?.focus(), [dry, done.length]);
  const submit = async () => {
    try {
      let after: string | null = null;
      for (;;) {
        const operation: Operation | undefined = await send(false, after);
        if (!operation) return;
        setDone((before) => [...before, operation]);
        if (!operation.hasMore || operation.cursor === after) break;
        after = operation.cursor;
      }
      selection.set(new Set());
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  return (
    <Dialog title={`${LABELS[verb]} ${plural(count, "run")}`} close={close}>
      {done.length ? (
        <>
          <Outcomes operations={done} said={DONE[verb]} />
          <button type="button" class="primary" onClick={close}>
            Close
          </button>
        </>
      ) : (
        <Form submit={submit} label={dry ? `${LABELS[verb]} ${plural(dry.changed, "run")}${dry.hasMore ? " and more" : ""}` : "…"} disabled={!dry?.changed}>
          {dry ? <Outcomes operations={[dry]} said={WILL[verb]} /> : <p class="loading">Asking the rules …</p>}
        </Form>
      )}
      {problem && <p class="problem">{problem}</p>}
    </Dialog>
  );
}

function Outcomes({ operations, said }: { operations: readonly Operation[]; said: string }) {
  const changed = operations.reduce((sum, each) => sum + each.changed, 0);
  const others = operations.flatMap(({ outcomes }) => outcomes).filter((each) => !each.changed);
  return (
    <div class="verdict" role="status">
      <p>
        <b class="good">{changed.toLocaleString("en")}</b> {said}.
      </p>
      <ul>
        {others.map(({ count, reason, status, problem }, index) => (
          <li key={index}>
            <b class="warning">{count.toLocaleString("en")} not</b>: {reason ?? problem ?? status}
          </li>
        ))}
      </ul>
      {operations.at(-1)?.hasMore && <p class="faint">There are more runs than were looked at; they follow when it is done.</p>}
    </div>
  );
}

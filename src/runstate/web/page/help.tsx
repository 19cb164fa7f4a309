// The keys.
import { Dialog, opened, PLACES } from "./shell.tsx";

const KEYS: readonly [key: string, does: string][] = [
  ["/ or Ctrl K", "search runs and flows, go somewhere, do something"],
  ...PLACES.map(([key, , label]): [string, string] => [`g ${key}`, label]),
  ["g e", "failures of the last day, and why"],
  ["g a", "Ask: GraphiQL"],
  ["j k", "next and previous row, or task run"],
  ["Enter", "open the row"],
  ["x", "select the row"],
  ["r", "retry: the run, the row or the selected rows"],
  ["c", "cancel: the same"],
  ["R C", "retry or cancel all runs that match the filter; C: cancel the unfinished runs of the flow"],
  ["p, u", "pause and resume the run"],
  ["v", "compare the run with the last completed one of its flow"],
  ["w", "what if: ask the rules without writing"],
  ["[ ]", "previous and next tab of a run"],
  ["l", "the stream of transitions"],
  [".", "hold changes back, or continue"],
  ["t, T", "local time or UTC; theme"],
  ["Esc", "close; from an opened run or flow, back"],
  ["?", "these keys"],
];

export function Help() {
  return (
    <Dialog title="Keys" close={() => opened.set(undefined)}>
      <dl class="keys">
        {KEYS.map(([key, does]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}

// The list of runs: the filter in the address, rows drawn only where they are seen, new rows on request.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask, follow } from "./client.ts";
import { type FlowRunWhere, RunCountsDocument, RunsDocument, type RunsQuery, RunTotalDocument } from "./documents.ts";
import { Chips } from "./chips.tsx";
import { action, actionsOf, bulk } from "./doing.ts";
import { duration, plural, secondsSince } from "./format.ts";
import { DEFAULT_SORT, FILTERS, orderOf, whereOf } from "./filters.ts";
import { useNow } from "./now.ts";
import { Ago, Empty, Problem, RunLink, State, Tags } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { go, href, place } from "./router.ts";
import { may } from "./rights.ts";
import { Selected, selection, toggled } from "./selection.tsx";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";
import { FINAL, withFirstPage } from "./store.ts";
import { useStored } from "./stored.ts";
import { Strip } from "./strip.tsx";
import { useCursor } from "./keyboard.ts";
import { Window } from "./window.tsx";

const PAGE = 100;
const STRIP = 200; // runs that are drawn in time

export type Row = RunsQuery["flowRuns"]["nodes"][number];

export function Runs() {
  useTitle("Runs");
  const { params } = useSignal(place);
  const where = whereOf(params);
  const orderBy = orderOf(params.sort);
  const key = JSON.stringify([where, orderBy]);
  const atTop = useRef(true);
  const [fresh, setFresh] = useState(0);
  const [rows, setRows] = useState<Row[]>([]);
  const [next, setNext] = useState<string | null>();
  const ids = useRef<ReadonlySet<string>>(new Set());
  ids.current = useMemo(() => new Set(rows.map(({ id }) => id)), [rows]);
  const query = useQuery(
    RunsDocument,
    { where, orderBy, first: PAGE, after: null },
    {
      main: true,
      matters: (change) => {
        if (change.runKind !== "FLOW_RUN") return false;
        if (atTop.current && !selection.value.size) return true;
        if (!ids.current.has(change.runId) && !change.previousStateType) setFresh((count) => count + 1);
        return false;
      },
    },
  );
  useEffect(() => {
    setRows([]);
    setFresh(0);
    selection.set(new Set());
  }, [key]);
  useEffect(() => {
    const page = query.data?.flowRuns;
    if (!page || query.stale) return;
    setFresh(0);
    setRows((before) => {
      const joined = withFirstPage(before, page.nodes);
      if (joined.length === page.nodes.length) setNext(page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null);
      return joined;
    });
  }, [query.data, query.stale]);
  const loading = useRef(false);
  const more = async () => {
    if (!next || loading.current) return;
    loading.current = true;
    try {
      const { flowRuns } = await ask(RunsDocument, { where, orderBy, first: PAGE, after: next });
      setRows((before) => [...before, ...flowRuns.nodes.filter(({ id }) => !ids.current.has(id))]);
      setNext(flowRuns.pageInfo.hasNextPage ? flowRuns.pageInfo.endCursor : null);
    } finally {
      loading.current = false;
    }
  };
  const shown = useStored(rows);
  const total = useTotal(JSON.stringify(where), where);
  return (
    <div class="runs">
      <div class="line">
        <h1>Runs</h1>
        <Chips params={params} filters={FILTERS} sort={params.sort ?? DEFAULT_SORT} />
        <span class="total">{total === undefined ? "" : plural(total, "run")}</span>
      </div>
      {query.error && <Problem message={query.error.message} />}
      {fresh > 0 && (
        <button type="button" class="pill" onClick={() => query.reload()} aria-keyshortcuts=".">
          {plural(fresh, "new run")}
          {Object.keys(where).length > 0 && ": show those that match"} ↑
        </button>
      )}
      <Strip rows={shown.slice(0, STRIP)} />
      <Table rows={shown} where={where} total={total} more={more} hasMore={Boolean(next)} atTop={atTop} onTop={query.reload} isEmpty={!rows.length && !query.stale && query.data?.flowRuns.nodes.length === 0} />
      <Selected where={where} total={total} rows={shown} />
    </div>
  );
}

/** The number of runs that match. Without a filter the server keeps it up to date, because that costs it little. */
function useTotal(key: string, where: object): number | undefined {
  const [total, setTotal] = useState<number>();
  const isFiltered = key !== "{}";
  useEffect(() => {
    if (isFiltered) return;
    setTotal(undefined);
    return follow(
      RunCountsDocument,
      () => ({ where: {} }),
      ({ runCounts }) => setTotal(runCounts.reduce((sum, { count }) => sum + count, 0)),
    );
  }, [isFiltered]);
  const counted = useQuery(RunTotalDocument, { where }, { skip: !isFiltered, matters: ({ runKind }) => runKind === "FLOW_RUN" });
  if (!isFiltered) return total;
  return counted.stale ? undefined : counted.data?.flowRunCount;
}

type TableProps = {
  rows: Row[];
  where: FlowRunWhere;
  total: number | undefined;
  more: () => Promise<void>;
  hasMore: boolean;
  atTop: { current: boolean };
  onTop: () => void;
  isEmpty: boolean;
};

function Table({ rows, where, total, more, hasMore, atTop, onTop, isEmpty }: TableProps) {
  const chosen = useSignal(selection);
  const act = (verb: "retry" | "cancel", run: Row | undefined) => () => {
    const these = selection.value;
    if (these.size && may.value.propose) bulk.set({ verb, where: { id: { in: [...these] } }, count: these.size });
    else if (run && may.value.propose) {
      const subject = { ...run, kind: "flowRun" as const };
      if (actionsOf(subject).includes(verb)) action.set({ verb, subject });
    }
  };
  const actOnAll = (verb: "retry" | "cancel") => () =>
    Object.keys(where).length > 0 && may.value.propose && bulk.set({ verb, where, count: total ?? 0 });
  const ids = useMemo(() => rows.map(({ id }) => id), [rows]);
  const cursor = useCursor(
    ids,
    (index) => ({
      Enter: () => rows[index] && go(href(["runs", rows[index].id])),
      x: () => rows[index] && selection.set(toggled(selection.value, rows[index].id)),
      r: act("retry", rows[index]),
      c: act("cancel", rows[index]),
      ...(total ? { R: actOnAll("retry"), C: actOnAll("cancel") } : {}),
      ".": onTop,
      Escape: () => selection.set(new Set()),
    }),
  );
  if (isEmpty) {
    return (
      <Empty>
        No run matches. <code>runstate demo</code> makes some; <a href="#/runs">show all runs</a>.
      </Empty>
    );
  }
  return (
    <Window
      rows={rows}
      label="Runs"
      head={<Head />}
      current={cursor}
      onEnd={() => void more()}
      hasMore={hasMore}
      onScroll={(top) => {
        const isAtTop = top < 40;
        if (isAtTop && !atTop.current) onTop();
        atTop.current = isAtTop;
      }}
      row={(run, index) => <RunRow run={run} isCurrent={index === cursor} isChosen={chosen.has(run.id)} />}
    />
  );
}

function Head() {
  return (
    <tr>
      <th scope="col" class="check">
        <span class="unseen">selected</span>
      </th>
      <th scope="col">run</th>
      <th scope="col">state</th>
      <th scope="col" class="wide">
        started
      </th>
      <th scope="col" class="number">
        took
      </th>
      <th scope="col" class="wide number">
        tasks
      </th>
      <th scope="col" class="wide">
        tags
      </th>
      <th scope="col" class="wide">
        why
      </th>
    </tr>
  );
}

export const whyOf = (run: Row): string => {
  const [task] = run.failed.nodes;
  if (task && run.stateType !== "COMPLETED") return `${task.taskKey}: ${task.state?.message ?? ""}`;
  return run.state?.message ?? "";
};

function RunRow({ run, isCurrent, isChosen }: { run: Row; isCurrent: boolean; isChosen: boolean }) {
  return (
    <>
      <td class="check">
        <input
          type="checkbox"
          checked={isChosen}
          aria-label={`Select ${run.name}`}
          onChange={() => selection.set(toggled(selection.value, run.id))}
        />
      </td>
      <td class={`name ${isCurrent ? "is-current" : ""}`}>
        <RunLink run={run} />
      </td>
      <td>
        <State run={run} />
      </td>
      <td class="wide">
        <Ago time={run.startTime ?? run.nextScheduledStartTime ?? run.expectedStartTime} />
      </td>
      <td class="number">
        <Took run={run} />
      </td>
      <td class="wide number">
        {run.ended.totalCount}/{run.all.totalCount}
      </td>
      <td class="wide">
        <Tags tags={run.tags.slice(0, 3)} />
      </td>
      <td class="wide why" title={whyOf(run)}>
        {whyOf(run)}
      </td>
    </>
  );
}

function Took({ run: { startTime, endTime, stateType, stateTimestamp } }: { run: Row }) {
  if (!startTime) return <span class="faint">–</span>;
  const end = endTime ?? (FINAL.has(stateType ?? "") ? stateTimestamp : null);
  return end ? <>{duration(secondsSince(startTime, Date.parse(end)))}</> : <SoFar startTime={startTime} />;
}

function SoFar({ startTime }: { startTime: string }) {
  const now = useNow();
  return <>{duration(Math.max(0, secondsSince(startTime, now)))}</>;
}

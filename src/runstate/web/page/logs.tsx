// Lines of a run and everything below it, followed live.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, follow } from "./client.ts";
import { FollowLogsDocument, LogsDocument, type LogsQuery } from "./documents.ts";
import { FORGOTTEN } from "./live.ts";
import { At, Empty } from "./parts.tsx";

const KEPT = 5000; // lines that are shown at most
const LEVELS: readonly [number, string][] = [
  [0, "all"],
  [10, "debug"],
  [20, "info"],
  [30, "warning"],
  [40, "error"],
  [50, "critical"],
];

type Line = LogsQuery["logs"]["nodes"][number];

export function Logs({ run }: { run: string }) {
  const [lines, setLines] = useState<Line[]>();
  const [before, setBefore] = useState<string | null>(null);
  const [level, setLevel] = useState(0);
  const [search, setSearch] = useState("");
  const [failed, setFailed] = useState("");
  const where = { ...(level ? { level: { gte: level } } : {}), ...(search ? { search } : {}) };
  useEffect(() => {
    let cursor: string | undefined;
    let isCurrent = true;
    setLines(undefined);
    setFailed("");
    const add = (more: readonly Line[]) => setLines((all) => joined(all ?? [], more));
    const stop = follow(
      FollowLogsDocument,
      async () => {
        if (!cursor) {
          const { logs, logCursor } = await ask(LogsDocument, { tree: run, where, before: null });
          cursor = logCursor;
          if (isCurrent) {
            setBefore(logs.pageInfo.hasPreviousPage ? logs.pageInfo.startCursor : null);
            setLines(logs.nodes);
          }
        }
        return { tree: run, where, after: cursor };
      },
      ({ logs }) => {
        cursor = logs.cursor;
        if (logs.logs.length) add(logs.logs);
      },
      (error) => {
        if (FORGOTTEN.has(error.code)) cursor = undefined;
        else if (error.code !== "LOST") setFailed(error.message);
      },
    );
    return () => {
      isCurrent = false;
      stop();
    };
  }, [run, level, search]);
  const earlier = async () => {
    const { logs } = await ask(LogsDocument, { tree: run, where, before });
    setBefore(logs.pageInfo.hasPreviousPage ? logs.pageInfo.startCursor : null);
    setLines((all) => joined(logs.nodes, all ?? []));
  };
  return (
    <div class="logs">
      <div class="line">
        <label>
          level{" "}
          <select value={level} onChange={(event) => setLevel(Number(event.currentTarget.value))}>
            {LEVELS.map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <input
          type="search"
          aria-label="Search in the lines"
          placeholder="words in the lines"
          onChange={(event) => setSearch(event.currentTarget.value.trim())}
        />
        {before && (
          <button type="button" onClick={() => void earlier()}>
            Earlier lines
          </button>
        )}
        {failed && <span class="problem">{failed}</span>}
      </div>
      {lines && !lines.length && <Empty>{level || search ? "No line matches." : "No lines. Programs write them with writeLogs."}</Empty>}
      <Lines lines={lines ?? []} />
    </div>
  );
}

export function joined(lines: readonly Line[], more: readonly Line[]): Line[] {
  const known = new Set(lines.map(({ id }) => id));
  return [...lines, ...more.filter(({ id }) => !known.has(id))].slice(-KEPT);
}

/** Stays at the end while the end is seen. */
function Lines({ lines }: { lines: readonly Line[] }) {
  const box = useRef<HTMLDivElement>(null);
  const [atEnd, setAtEnd] = useState(true);
  const toEnd = () => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  };
  useEffect(() => {
    if (atEnd) toEnd();
  }, [lines]);
  if (!lines.length) return null;
  return (
    <>
      <div
        class="lines"
        ref={box}
        tabIndex={0}
        role="log"
        aria-label="Log"
        onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
          setAtEnd(scrollTop + clientHeight > scrollHeight - 40);
        }}
      >
        {lines.map((line) => (
          <div key={line.id} class={`log is-${line.levelName.toLowerCase()}`}>
            <At time={line.timestamp} precise />
            <span class="level">{line.levelName}</span>
            <span class="faint">{line.taskRun?.name ?? line.logger}</span>
            <span class="text">
              {line.message}
              {line.truncated && <span class="warning"> … the rest was cut off</span>}
            </span>
          </div>
        ))}
      </div>
      {!atEnd && (
        <button type="button" onClick={toEnd}>
          ↓ Newest lines
        </button>
      )}
    </>
  );
}

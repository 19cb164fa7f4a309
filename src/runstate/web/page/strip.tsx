// The listed runs in time: a lane for each flow, a bar for each run. Dragging chooses a time range. The list says the same.
import { useRef, useState } from "preact/hooks";
import { clock, utc } from "./format.ts";
import { useNow } from "./now.ts";
import { href, setParams } from "./router.ts";
import type { Row } from "./runs.tsx";
import { useSignal } from "./signal.ts";
import { toneOf } from "./states.ts";
import { ticks } from "./timeline.ts";

const LANES = 8;
const SHORTEST = 0.01; // share of the width below which a drag is a click

/** The flows with the newest runs, each with its runs that have started. */
export function lanes(rows: readonly Row[]): [flow: string, runs: Row[]][] {
  const byFlow = new Map<string, Row[]>();
  for (const row of rows) {
    if (!row.startTime) continue;
    const known = byFlow.get(row.flow.name);
    if (known) known.push(row);
    else if (byFlow.size < LANES) byFlow.set(row.flow.name, [row]);
  }
  return [...byFlow];
}

export function Strip({ rows }: { rows: readonly Row[] }) {
  const now = useNow();
  const isUtc = useSignal(utc);
  const track = useRef<HTMLDivElement>(null);
  const [drag, setDrag] = useState<[from: number, to: number]>();
  const shown = lanes(rows);
  const runs = shown.flatMap(([, each]) => each);
  if (runs.length < 2) return null;
  const start = (run: Row) => Date.parse(run.startTime ?? "");
  const end = (run: Row) => (run.endTime ? Date.parse(run.endTime) : now);
  const from = Math.min(...runs.map(start));
  const to = Math.max(from + 1000, ...runs.map(end));
  const isShort = to - from < 10_000;
  const at = (time: number) => (100 * (time - from)) / (to - from);
  const share = (event: PointerEvent) => {
    const box = track.current?.getBoundingClientRect();
    return box ? Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) : 0;
  };
  const choose = () => {
    setDrag(undefined);
    if (!drag || Math.abs(drag[1] - drag[0]) < SHORTEST) return;
    const instant = (part: number) => new Date(from + part * (to - from)).toISOString();
    const [first, last] = [Math.min(...drag), Math.max(...drag)];
    setParams({ where: JSON.stringify({ startTime: { gte: instant(first), lte: instant(last) } }) });
  };
  return (
    <div class="strip wide-block" aria-hidden="true">
      <div class="names">
        {shown.map(([flow]) => (
          <span key={flow}>{flow}</span>
        ))}
      </div>
      <div
        class="tracks"
        ref={track}
        onPointerDown={(event) => {
          if ((event.target as Element).closest("a")) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          setDrag([share(event), share(event)]);
        }}
        onPointerMove={(event) => drag && setDrag([drag[0], share(event)])}
        onPointerUp={choose}
      >
        {ticks(from, to, 6).map((time) => (
          <span key={time} class="rule" style={{ left: `${at(time)}%` }}>
            <small>{clock(new Date(time).toISOString(), isUtc, isShort)}</small>
          </span>
        ))}
        {shown.map(([flow, each]) => (
          <div key={flow} class="strip-lane">
            {each.map((run) => (
              <a
                key={run.id}
                tabIndex={-1}
                href={href(["runs", run.id])}
                class={`fill ${toneOf(run.stateType)}`}
                style={{ left: `${at(start(run))}%`, width: `${at(end(run)) - at(start(run))}%` }}
                title={`${run.name}: ${run.stateName}`}
              />
            ))}
          </div>
        ))}
        {drag && <span class="brush" style={{ left: `${100 * Math.min(...drag)}%`, width: `${100 * Math.abs(drag[1] - drag[0])}%` }} />}
      </div>
    </div>
  );
}

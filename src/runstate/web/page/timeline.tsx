// The timeline: a lane for the run and for each task run, made of their states. A table lists the same beside it.
import { duration, clock, utc } from "./format.ts";
import { narrow, useNow } from "./now.ts";
import { setParams } from "./router.ts";
import { useSignal } from "./signal.ts";
import { lookOf, toneOf } from "./states.ts";
import { type Bar, bar, ticks, type TimedState } from "./timeline.ts";

export type Lane = { id: string; label: string; states: readonly TimedState[]; isWhole: boolean; ghost?: TimedState[] | undefined; run: { stateType?: string | null; stateName?: string | null } };

const NAMES: Record<string, string> = {
  waiting: "waited",
  running: "ran",
  retrying: "ran again",
  "retry-wait": "awaited a retry",
  paused: "was paused",
  cancelling: "was being cancelled",
};

export function Timeline({ lanes, selected }: { lanes: readonly Lane[]; selected?: string | undefined }) {
  const now = useNow();
  const isUtc = useSignal(utc);
  const isNarrow = useSignal(narrow);
  const bars = lanes.map((lane) => ({ lane, shown: bar(lane.states, now), ghost: lane.ghost && bar(lane.ghost, now) }));
  const known = bars.filter(({ shown }) => Number.isFinite(shown.from));
  if (!known.length) return <p class="empty">No states yet.</p>;
  const [from, to] = extent(known.flatMap(({ shown, ghost }) => (ghost ? [shown, ghost] : [shown])));
  const at = (time: number) => `${(100 * (time - from)) / (to - from)}%`;
  const isShort = to - from < 60_000;
  const marks = ticks(from, to, isNarrow ? 3 : 6);
  return (
    <figure class="timeline">
      <figcaption class="unseen">States of the run and its task runs in time. The tab Task runs has them as a table.</figcaption>
      <div class="lane axis" aria-hidden="true">
        <span class="label" />
        <div class="track">
          {marks.map((time) => (
            <span key={time} class="tick" style={{ left: at(time) }}>
              {clock(new Date(time).toISOString(), isUtc, isShort && to - from < 10_000).replace("Z", "")}
            </span>
          ))}
        </div>
      </div>
      <ol>
        {bars.map(({ lane, shown, ghost }) => (
          <li key={lane.id} class={`lane ${lane.isWhole ? "is-whole" : ""} ${lane.id === selected ? "is-current" : ""}`}>
            <button
              type="button"
              class="label"
              disabled={lane.isWhole}
              aria-pressed={lane.isWhole ? undefined : lane.id === selected}
              onClick={() => setParams({ task: lane.id === selected ? undefined : lane.id })}
              aria-label={`${lane.label}: ${said(shown, lane)}`}
            >
              <i class={`state ${toneOf(lane.run.stateType)}`} aria-hidden="true">
                {lookOf(lane.run.stateType).shape}
              </i>
              <span>{lane.label}</span>
            </button>
            <div class="track" aria-hidden="true" onClick={() => !lane.isWhole && setParams({ task: lane.id })}>
              {marks.map((time) => (
                <span key={time} class="rule" style={{ left: at(time) }} />
              ))}
              {ghost?.segments
                .filter(({ part }) => part === "running" || part === "retrying")
                .map((segment) => (
                  <span
                    key={`ghost ${segment.state.version}`}
                    class="ghost"
                    style={{ left: at(segment.from), right: `calc(100% - ${at(segment.to)})` }}
                    title={`the last completed run: ${duration((segment.to - segment.from) / 1000)}`}
                  />
                ))}
              <Drawn shown={shown} at={at} stateType={lane.run.stateType} />
            </div>
          </li>
        ))}
      </ol>
    </figure>
  );
}

/** Leave some room on both sides; scheduled runs may have waited for hours: the wait before the first start is cut. */
function extent(bars: readonly Bar[]): [number, number] {
  const to = Math.max(...bars.map((each) => each.to));
  const started = bars.flatMap(({ segments, marks }) => [
    ...segments.filter(({ part }) => part !== "waiting").map((each) => each.from),
    ...marks.map((each) => each.at),
  ]);
  const first = Math.min(...bars.map((each) => each.from));
  const begun = Math.min(...started);
  const from = Number.isFinite(begun) ? Math.max(first, begun - 0.15 * (to - begun) - 50) : first;
  const room = Math.max(20, (to - from) * 0.01);
  return [from - room, to + Math.max(2 * room, (to - from) * 0.05)];
}

export function Drawn({ shown, at, stateType }: { shown: Bar; at: (time: number) => string; stateType?: string | null | undefined }) {
  const ended = toneOf(stateType);
  return (
    <>
      {shown.segments.map((segment) => (
        <span
          key={segment.state.version}
          class={`segment is-${segment.part} ${segment.open ? "is-open" : ""} ${isLast(shown, segment.state.version) ? ended : ""}`}
          style={{ left: `max(0%, ${at(segment.from)})`, right: `calc(100% - ${at(segment.to)})` }}
          title={`${segment.state.name}: ${NAMES[segment.part]} ${duration((segment.to - segment.from) / 1000)}`}
        />
      ))}
      {shown.marks.map(({ at: time, state, failed }) => (
        <span
          key={state.version}
          class={`mark ${failed ? "is-failed" : toneOf(state.type)}`}
          style={{ left: at(time) }}
          title={`${state.name}${state.message ? `: ${state.message}` : ""}`}
        >
          {failed ? (state.type === "CRASHED" ? "☠" : "✗") : lookOf(state.type).shape}
        </span>
      ))}
    </>
  );
}

/** Whether a segment ends with the final state of the run. */
const isLast = ({ segments, marks }: Bar, version: number) => marks.some(({ state }) => state.version === version + 1) && segments.at(-1)?.state.version === version;

function said({ segments, marks, attempts }: Bar, lane: Lane): string {
  const ran = segments.filter(({ part }) => part === "running" || part === "retrying").reduce((sum, { from, to }) => sum + to - from, 0);
  const failures = marks.filter(({ failed }) => failed).length;
  return `${lane.run.stateName ?? "no state"}, ran ${duration(ran / 1000)}${attempts > 1 ? ` in ${attempts} attempts` : ""}${failures ? `, failed ${failures} times` : ""}`;
}

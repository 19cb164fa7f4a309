// Runs by time: a column for each interval, stacked by state. Each column with runs is a link to them.
import type { OverviewQuery } from "./documents.ts";
import { clock, duration, plural, utc } from "./format.ts";
import { href } from "./router.ts";
import { useSignal } from "./signal.ts";
import { lookOf, TYPES, toneOf } from "./states.ts";

type Interval = OverviewQuery["flowRunHistory"][number];

export function History({ intervals, step }: { intervals: readonly Interval[]; step: number }) {
  const isUtc = useSignal(utc);
  const total = ({ states }: Interval) => states.reduce((sum, { count }) => sum + count, 0);
  const most = Math.max(1, ...intervals.map(total));
  return (
    <figure class="history">
      <figcaption>
        <span>Runs by {name(step)}</span>
        <span class="faint">most: {most.toLocaleString("en")}</span>
      </figcaption>
      <ol>
        {intervals.map((interval) => {
          const count = total(interval);
          const text = `${clock(interval.start, isUtc)}: ${plural(count, "run")}${said(interval)}`;
          const where = JSON.stringify({ expectedStartTime: { gte: interval.start, lt: interval.end } });
          return (
            <li key={interval.start}>
              {count > 0 && (
                <a href={href(["runs"], { where })} title={text} aria-label={text}>
                  <Stack interval={interval} most={most} />
                </a>
              )}
            </li>
          );
        })}
      </ol>
      <div class="axis" aria-hidden="true">
        <span>{clock(intervals[0]?.start, isUtc)}</span>
        <span>{clock(intervals[Math.floor(intervals.length / 2)]?.start, isUtc)}</span>
        <span>now</span>
      </div>
    </figure>
  );
}

const name = (step: number) => (step === 3600 ? "hour" : step === 86_400 ? "day" : duration(step));

const byType = ({ states }: Interval) =>
  TYPES.map((type) => ({ type, count: states.filter(({ stateType }) => stateType === type).reduce((sum, { count }) => sum + count, 0) })).filter(
    ({ count }) => count,
  );

const said = (interval: Interval) =>
  byType(interval)
    .map(({ type, count }) => `, ${count} ${lookOf(type).label}`)
    .join("");

function Stack({ interval, most }: { interval: Interval; most: number }) {
  return (
    <>
      {byType(interval).map(({ type, count }) => (
        <span key={type} class={`fill ${toneOf(type)}`} style={{ height: `${(100 * count) / most}%` }} />
      ))}
    </>
  );
}

// Times and durations as text.
import { Signal } from "./signal.ts";

export const utc = new Signal(localStorage.getItem("runstate.utc") === "yes");

export function toggleUtc(): void {
  localStorage.setItem("runstate.utc", utc.value ? "no" : "yes");
  utc.set(!utc.value);
}

const UNITS: readonly [string, number][] = [
  ["d", 86_400],
  ["h", 3600],
  ["m", 60],
  ["s", 1],
];

/** 5_025 seconds are "1 h 23 m": at most two units. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  let rest = Math.round(seconds);
  const parts: string[] = [];
  for (const [unit, length] of UNITS) {
    const count = Math.floor(rest / length);
    rest -= count * length;
    if (count) parts.push(`${count} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0 s";
}

export const secondsSince = (time: string, now: number) => (now - Date.parse(time)) / 1000;

/** "2 m ago", "in 3 h" */
export function relative(time: string | null | undefined, now: number): string {
  if (!time) return "–";
  const seconds = secondsSince(time, now);
  if (Math.abs(seconds) < 1) return "now";
  const text = duration(Math.abs(seconds) < 10 ? Math.round(Math.abs(seconds)) : Math.abs(seconds));
  const short = text.replace(".0", "");
  return seconds > 0 ? `${short.split(" ").slice(0, 2).join(" ")} ago` : `in ${short}`;
}

const pad = (number: number, width = 2) => String(number).padStart(width, "0");

/** 23:55:24, with the date if it is not today, with milliseconds if wanted. */
export function clock(time: string | null | undefined, isUtc: boolean, precise = false): string {
  if (!time) return "–";
  const at = new Date(time);
  const shown = isUtc ? at : new Date(at.getTime() - at.getTimezoneOffset() * 60_000);
  const today = new Date();
  const isToday = isUtc ? at.toISOString().slice(0, 10) === today.toISOString().slice(0, 10) : at.toDateString() === today.toDateString();
  const date = isToday ? "" : `${pad(shown.getUTCMonth() + 1)}-${pad(shown.getUTCDate())} `;
  const text = `${pad(shown.getUTCHours())}:${pad(shown.getUTCMinutes())}:${pad(shown.getUTCSeconds())}`;
  return `${date}${text}${precise ? `.${pad(shown.getUTCMilliseconds(), 3)}` : ""}${isUtc ? "Z" : ""}`;
}

/** The tooltip of a time: local and UTC. */
export function full(time: string): string {
  return `${new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })} (${time.replace("T", " ").replace(/\.\d+/, "").replace("+00:00", "Z")})`;
}

export const percent = (share: number | null | undefined) =>
  share === null || share === undefined ? "–" : `${Math.floor(share * 1000) / 10} %`;

export const plural = (count: number, one: string, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** "1h", "24h", "7d" in seconds; undefined for anything else. */
export function secondsOf(range: string | undefined): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(s|m|h|d)$/.exec(range ?? "");
  const length = match && UNITS.find(([unit]) => unit === match[2])?.[1];
  return match && length ? Number(match[1]) * length : undefined;
}

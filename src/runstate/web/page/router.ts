// The address after "#": a path and parameters. Servers and proxies never see it.
import { Signal } from "./signal.ts";

export type Params = Record<string, string>;
export type Place = { path: string[]; params: Params };

export function parse(hash: string): Place {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), params: Object.fromEntries(new URLSearchParams(search)) };
}

export function href(path: readonly string[], params: Record<string, string | undefined> = {}): string {
  const given = Object.entries(params).filter((each): each is [string, string] => Boolean(each[1]));
  // Commas and colons stay readable.
  const search = new URLSearchParams(given).toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  return `#/${path.map(encodeURIComponent).join("/")}${search && `?${search}`}`;
}

export const place = new Signal<Place>({ path: [], params: {} });

export function go(target: string): void {
  location.hash = target;
}

/** Change parameters of the present view without a new entry in the history. */
export function setParams(changes: Record<string, string | undefined>): void {
  const { path, params } = place.value;
  history.replaceState(history.state, "", href(path, { ...params, ...changes }));
  place.set(parse(location.hash));
}

type Entry = { depth: number } | null;
let depth = 0; // entries of the history before this one that belong to the page

/** Leave what was opened, a run or a flow, for the view that led to it. A place, or a run that a link opened, is not left. */
export function back(): void {
  if (place.value.path.length > 1 && depth) history.back();
}

export function watchAddress(): void {
  const read = () => {
    // A new entry has no state yet; the others keep theirs when the user goes back and forth, or loads the page again.
    depth = (history.state as Entry)?.depth ?? depth + 1;
    history.replaceState({ depth }, "");
    place.set(parse(location.hash));
  };
  addEventListener("hashchange", read);
  history.replaceState(history.state ?? { depth }, "");
  read();
}

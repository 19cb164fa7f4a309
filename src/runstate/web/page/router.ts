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
  history.replaceState(null, "", href(path, { ...params, ...changes }));
  place.set(parse(location.hash));
}

let steps = 0; // entries of the history that belong to the page

/** Go back within the page; from its first view, to the overview. */
export function back(): void {
  if (steps < 1) return go("#/");
  steps -= 2; // the change of the address adds one
  history.back();
}

export function watchAddress(): void {
  const read = () => place.set(parse(location.hash));
  addEventListener("hashchange", () => {
    steps += 1;
    read();
  });
  read();
}

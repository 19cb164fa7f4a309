// Keys. A view adds its own while it is shown; the others work everywhere.
import { useLayoutEffect, useRef, useState } from "preact/hooks";

export type Keys = Record<string, () => unknown>;

const layers: Keys[] = [];
let early: { key: string; until: number }[] = []; // keys that were pressed before the view had them
const PATIENCE = 10_000; // milliseconds for which they are kept
let prefix = "";
let forgetting: ReturnType<typeof setTimeout> | undefined;

const isTyping = (target: EventTarget | null) =>
  target instanceof HTMLElement && Boolean(target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]"));

function onKey(event: KeyboardEvent): void {
  const isPalette = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k";
  if (!isPalette && (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target))) return;
  if (document.querySelector("dialog:modal")) return;
  // Enter on a link or a button is theirs.
  if (event.key === "Enter" && event.target instanceof Element && event.target.closest("a, button, summary, input")) return;
  const key = isPalette ? "mod+k" : event.key;
  const found = find(`${prefix}${key}`) ?? find(key);
  setPrefix(!found && key === "g" ? "g " : "");
  if (!found && !prefix) keep(key);
  if (!found) return;
  forget();
  event.preventDefault();
  found();
}

// "g" waits a second for the second key.
function setPrefix(next: string): void {
  clearTimeout(forgetting);
  prefix = next;
  if (next) forgetting = setTimeout(() => setPrefix(""), 1000);
}

const find = (key: string) => layers.findLast((layer) => key in layer)?.[key];

const forget = () => {
  early = [];
};

/** Keep a key for the view that is loading. */
function keep(key: string): void {
  const now = Date.now();
  early = [...early.filter(({ until }) => until > now), { key, until: now + PATIENCE }];
}

/** Press the kept keys that are known now, each after the previous one was drawn. */
function catchUp(): void {
  const [first] = early;
  const found = first && first.until > Date.now() ? find(first.key) : undefined;
  if (!found) return;
  early.shift();
  found();
  setTimeout(catchUp);
}

export function listenToKeys(): void {
  addEventListener("keydown", onKey);
  // Who uses the mouse has left the view that the keys were for.
  addEventListener("pointerdown", forget);
}

/** Keys of a view; those of the page itself, `isBase`, count only where no view has the same. A view has its keys once it
 * has its data: what is pressed before that waits for them. */
export function useKeys(keys: Keys, isBase = false): void {
  const newest = useRef(keys);
  newest.current = keys;
  const names = Object.keys(keys).join(" ");
  // Before the first picture is shown.
  useLayoutEffect(() => {
    const layer = Object.fromEntries(names.split(" ").map((name) => [spaced(name), () => newest.current[name]?.()]));
    if (isBase) layers.unshift(layer);
    else layers.push(layer);
    setTimeout(catchUp);
    return () => {
      layers.splice(layers.indexOf(layer), 1);
    };
  }, [names]);
}

// Names of two keys are written with "_" here, because names are joined with spaces.
const spaced = (name: string) => name.replace("_", " ");

/** The row that j and k move: -1 until one of them is pressed. It follows its row when rows come and go. */
export function useCursor(ids: readonly string[], keys: (index: number) => Keys = () => ({})): number {
  const [id, setId] = useState<string>();
  const index = id === undefined ? -1 : ids.indexOf(id);
  const move = (by: number) => setId(ids[Math.max(0, Math.min(ids.length - 1, index + by))]);
  const ours = { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), ...keys(index) };
  useKeys(ids.length ? ours : {});
  return index;
}

// The frame of all views: places, connection, theme, keys, dialogs.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { asCurl, connection, inGraphiQL, keyWanted, setKey } from "./client.ts";
import { clock, toggleUtc, utc } from "./format.ts";
import { narrow, useNow } from "./now.ts";
import { shown } from "./query.ts";
import { href, place } from "./router.ts";
import { Signal, useSignal } from "./signal.ts";

export const PLACES: readonly [key: string, path: string, label: string][] = [
  ["o", "", "Overview"],
  ["r", "runs", "Runs"],
  ["f", "flows", "Flows"],
  ["d", "deployments", "Deployments"],
  ["w", "pools", "Work pools"],
  ["l", "limits", "Limits"],
  ["t", "automations", "Automations"],
  ["v", "events", "Events"],
];

const THEMES = ["system", "dark", "light"] as const;
type Theme = (typeof THEMES)[number];
const THEME = "runstate.theme";
export const theme = new Signal<Theme>((localStorage.getItem(THEME) as Theme | null) ?? "system");

export function showTheme(): void {
  const apply = (chosen: Theme) => {
    if (chosen === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
  };
  apply(theme.value);
  theme.listen((chosen) => {
    localStorage.setItem(THEME, chosen);
    apply(chosen);
  });
}

export function nextTheme(): void {
  theme.set(THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length] ?? "system");
}

export type Opened = "palette" | "help" | "live" | undefined;
export const opened = new Signal<Opened>(undefined);

/** What is said to those who do not see the page. */
export const spoken = new Signal("");

export function Shell({ children }: { children: ComponentChildren }) {
  const { path } = useSignal(place);
  const here = path[0] ?? "";
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => skip(event)}>
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href="#/">
          runstate
        </a>
        <nav aria-label="Places">
          {PLACES.map(([key, name, label]) => (
            <a key={key} href={href(name ? [name] : [])} aria-current={here === name ? "page" : undefined}>
              {label}
            </a>
          ))}
          <a href="graphiql/">Ask</a>
        </nav>
        <div class="tools">
          <button type="button" onClick={() => opened.set("palette")} aria-keyshortcuts="Control+K /">
            Search <kbd>/</kbd>
          </button>
          <button type="button" onClick={() => opened.set("live")} aria-keyshortcuts="l">
            Live <kbd>l</kbd>
          </button>
          <Behind />
          <Dot />
          <Clocks />
        </div>
      </header>
      <Banner />
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <Spoken />
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Spoken() {
  return (
    <div class="unseen" role="status" aria-live="polite">
      {useSignal(spoken)}
    </div>
  );
}

function Clocks() {
  const isUtc = useSignal(utc);
  const chosen = useSignal(theme);
  return (
    <>
      <button type="button" class="small" onClick={toggleUtc} aria-keyshortcuts="t" title="Local time or UTC (t)">
        {isUtc ? "UTC" : "Local"}
      </button>
      <button type="button" class="small theme" onClick={nextTheme} aria-keyshortcuts="Shift+T" title="Theme: system, dark or light (T)">
        <i aria-hidden="true">{{ system: "◐", dark: "●", light: "○" }[chosen]}</i> <span>{{ system: "Auto", dark: "Dark", light: "Light" }[chosen]}</span>
      </button>
    </>
  );
}

function Dot() {
  const { state, delay } = useSignal(connection);
  const isNarrow = useSignal(narrow);
  const measured = delay === undefined || isNarrow ? "" : ` ${Math.max(1, Math.round(delay))} ms`;
  const text = state === "live" ? `live${measured}` : state;
  return (
    <span class={`dot is-${state}`} title="The connection, and how long a message takes there and back">
      <i aria-hidden="true">{state === "live" ? "●" : "○"}</i> <span>{text}</span>
    </span>
  );
}

function Banner() {
  const { state, since } = useSignal(connection);
  const now = useNow();
  if (state !== "away" || now - since < 1500) return null;
  return (
    <p class="banner" role="status">
      Not connected since {clock(new Date(since).toISOString(), utc.value)}. The last known states are shown; actions are off.
    </p>
  );
}

/** The menu with the query behind the view. */
function Behind() {
  const asked = useSignal(shown);
  const [said, setSaid] = useState("");
  const copy = (text: string, what: string) => {
    void navigator.clipboard?.writeText(text).then(() => setSaid(`${what} copied`));
    setTimeout(() => setSaid(""), 1500);
  };
  if (!asked) return null;
  return (
    <details class="menu" onToggle={(event) => closeOutside(event.currentTarget)}>
      <summary title="The query behind this view">Query</summary>
      <div>
        <a href={inGraphiQL(asked)}>Open in GraphiQL</a>
        <button type="button" onClick={() => copy(asCurl(asked), "curl")}>
          Copy as curl
        </button>
        <button type="button" onClick={() => copy(location.href, "Link")}>
          Copy link
        </button>
        {said && <span role="status">{said}</span>}
      </div>
    </details>
  );
}

function closeOutside(menu: HTMLDetailsElement): void {
  if (!menu.open) return;
  const close = (event: Event) => {
    if (menu.contains(event.target as Node) && !(event.target as Element).closest("a")) return;
    menu.open = false;
    removeEventListener("click", close);
  };
  addEventListener("click", close);
}

export function KeyDialog() {
  const why = useSignal(keyWanted);
  const [text, setText] = useState("");
  if (why === undefined) return null;
  return (
    <Dialog title="Key" close={() => keyWanted.set(undefined)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setKey(text.trim());
        }}
      >
        <p>{why}</p>
        <label>
          API key, or user:password
          <input type="password" autocomplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <p class="faint">This tab keeps it until it is closed.</p>
        <button type="submit" class="primary">
          Use the key
        </button>
      </form>
    </Dialog>
  );
}

export function Dialog({ title, close, children, side = false }: { title: string; close: () => void; children: ComponentChildren; side?: boolean }) {
  return (
    <dialog
      class={side ? "side" : ""}
      aria-label={title}
      ref={(element) => {
        if (!element || element.open) return;
        if (side) element.show();
        else element.showModal();
      }}
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onClose={({ currentTarget: { isConnected, open } }) => {
        // The browser tells late that it closed a dialog: the next one can be open.
        if (isConnected && !open) close();
      }}
      onKeyDown={(event) => {
        if (event.key !== "Escape") return;
        event.stopPropagation();
        event.preventDefault();
        close();
      }}
    >
      <div class="head">
        <h2>{title}</h2>
        <button type="button" class="small" onClick={close} aria-label="Close">
          ✕
        </button>
      </div>
      {children}
    </dialog>
  );
}

export const useTitle = (title: string) =>
  useEffect(() => {
    document.title = title ? `${title} · runstate` : "runstate";
  }, [title]);

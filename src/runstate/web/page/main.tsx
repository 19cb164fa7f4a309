// The live page.
import { render } from "preact";
import { Automations } from "./automations.tsx";
import { Deployments } from "./deployments.tsx";
import { Dialogs } from "./dialogs.tsx";
import { nextTheme, opened, PLACES, Shell, showTheme, spoken } from "./shell.tsx";
import { connection, GraphQLError } from "./client.ts";
import { Events } from "./events.tsx";
import { Flow } from "./flow.tsx";
import { Flows } from "./flows.tsx";
import { toggleUtc } from "./format.ts";
import { listenToKeys, useKeys } from "./keyboard.ts";
import { anew, begin, held, onChanges, paused, setPaused } from "./live.ts";
import { Limits } from "./limits.tsx";
import { Overview } from "./overview.tsx";
import { Empty } from "./parts.tsx";
import { Pools } from "./pools.tsx";
import { back, go, href, place, watchAddress } from "./router.ts";
import { Run } from "./run.tsx";
import { Runs } from "./runs.tsx";
import { useSignal } from "./signal.ts";
import css from "./page.css?inline";

function View() {
  const { path } = useSignal(place);
  const [name, id] = path;
  if (!name) return <Overview />;
  if (name === "runs") return id ? <Run key={id} id={id} /> : <Runs />;
  if (name === "flows") return id ? <Flow key={id} name={id} /> : <Flows />;
  if (name === "limits") return <Limits />;
  if (name === "deployments") return <Deployments />;
  if (name === "pools") return <Pools />;
  if (name === "automations") return <Automations />;
  if (name === "events") return <Events />;
  return (
    <Empty>
      There is no such view. <a href="#/">Overview</a>
    </Empty>
  );
}

function Page() {
  useKeys({
    "mod+k": () => opened.set("palette"),
    "/": () => opened.set("palette"),
    "?": () => opened.set("help"),
    l: () => opened.set(opened.value === "live" ? undefined : "live"),
    t: toggleUtc,
    T: nextTheme,
    ".": () => setPaused(!paused.value),
    Escape: back,
    ...Object.fromEntries(PLACES.map(([key, name]) => [`g_${key}`, () => go(href(name ? [name] : []))])),
    g_e: () => go(href(["runs"], { state: "failed,crashed", ended: "24h", sort: "-endTime" })),
    g_a: () => location.assign("graphiql/"),
  }, true);
  return (
    <Shell>
      <View />
      <Dialogs />
      <Paused />
    </Shell>
  );
}

function Paused() {
  const isPaused = useSignal(paused);
  if (!isPaused) return null;
  return (
    <p class="pill is-fixed" role="status">
      Paused; {held() ? "changes are held back" : "nothing new"}.{" "}
      <button type="button" class="link" onClick={() => setPaused(false)}>
        Continue (.)
      </button>
    </p>
  );
}

// Failures are announced together, at most once in five seconds.
function announce(): void {
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  onChanges((changes) => {
    failures += changes.filter(({ runKind, stateType }) => runKind === "FLOW_RUN" && (stateType === "FAILED" || stateType === "CRASHED")).length;
    if (!failures || timer) return;
    timer = setTimeout(() => {
      spoken.set(`${failures} ${failures === 1 ? "run" : "runs"} failed`);
      failures = 0;
      timer = undefined;
    }, 5000);
  });
}

async function start(isRepeated = false): Promise<void> {
  try {
    await begin();
    if (isRepeated) anew.set(anew.value + 1);
  } catch (error) {
    if (error instanceof GraphQLError && error.code === "UNAUTHENTICATED") return;
    connection.set({ state: "away", since: connection.value.since });
    setTimeout(() => start(true), 2000);
  }
}

// In the bundle, so that the first visit loads one file less.
const styles = new CSSStyleSheet();
styles.replaceSync(css);
document.adoptedStyleSheets = [styles];

showTheme();
watchAddress();
listenToKeys();
announce();
// The first request is under way while the first picture is made.
void start();
render(<Page />, document.getElementById("page") as HTMLElement);

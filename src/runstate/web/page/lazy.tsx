// Views that are loaded when they are opened.
import type { FunctionComponent } from "preact";
import { useEffect, useState } from "preact/hooks";

export function lazy<Props extends object>(load: () => Promise<FunctionComponent<Props>>): FunctionComponent<Props> {
  let loaded: FunctionComponent<Props> | undefined;
  return function Lazy(props: Props) {
    const [, render] = useState(0);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (loaded) return;
      load().then(
        (component) => {
          loaded = component;
          render((count) => count + 1);
        },
        () => setFailed(true),
      );
    }, []);
    const View = loaded;
    if (failed) return <p class="problem">The view could not be loaded. Is the server running?</p>;
    return View ? <View {...props} /> : <p class="loading">Loading …</p>;
  };
}


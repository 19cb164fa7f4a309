// The present, once a second while the page is seen, so that relative times tick.
import { Signal, useSignal } from "./signal.ts";

const now = new Signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.set(Date.now());
}, 1000);

export const useNow = (): number => useSignal(now);

// The present, once a second while the page is seen, so that relative times tick; and the width of the page.
import { Signal, useSignal } from "./signal.ts";

const now = new Signal(Date.now());

setInterval(() => {
  if (!document.hidden) now.set(Date.now());
}, 1000);

// Whether the page is as narrow as a phone.
const phone = matchMedia("(max-width: 640px)");
export const narrow = new Signal(phone.matches);
phone.addEventListener("change", () => narrow.set(phone.matches));

export const useNow = (): number => useSignal(now);

// A value with listeners, and the hook that renders a component again when it changes.
import { useEffect, useState } from "preact/hooks";

export class Signal<Value> {
  private readonly listeners = new Set<(value: Value) => void>();

  constructor(public value: Value) {}

  set(value: Value): void {
    if (value === this.value) return;
    this.value = value;
    for (const listener of [...this.listeners]) listener(value);
  }

  listen(listener: (value: Value) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

export function useSignal<Value>(signal: Signal<Value>): Value {
  const [value, setValue] = useState(() => signal.value);
  useEffect(() => {
    setValue(() => signal.value);
    return signal.listen((next) => setValue(() => next));
  }, [signal]);
  return value;
}

// A component that renders nothing. It executes the first example, updates the address, and sets variables of examples.
import { useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useRef } from "react";
import { GREETING, isExample, valuesOf, variablesOf } from "./examples.js";
import { linkTo } from "./link.js";

const FILLED = "filled"; // storage key of the variables that were set here; changed variables are not replaced
const PAUSE = 300; // milliseconds without a change before the address is updated

export function Assistant({ url, link }) {
  const tab = useGraphiQL(({ tabs, activeTabIndex }) => tabs[activeTabIndex]);
  useGreeting();
  useLink(tab);
  useVariables(tab, url, link);
  return null;
}

function useGreeting() {
  const { run } = useGraphiQLActions();
  const isReady = useGraphiQL(({ queryEditor, responseEditor }) => Boolean(queryEditor && responseEditor));
  const greets = useGraphiQL(({ queryEditor }) => queryEditor?.getValue() === GREETING);
  useEffect(() => {
    if (isReady && greets) run();
  }, [isReady]);
}

function useLink({ query, variables }) {
  useEffect(() => {
    const timer = setTimeout(() => history.replaceState(null, "", linkTo({ query, variables })), PAUSE);
    return () => clearTimeout(timer);
  }, [query, variables]);
}

// The tab of a link is shown unchanged. Other examples get new values whenever they are shown.
function useVariables({ id, query, variables }, url, link) {
  const storage = useGraphiQL((state) => state.storage);
  const editor = useGraphiQL((state) => state.variableEditor);
  const headers = useGraphiQL((state) => state.headerEditor);
  const asLinked = useRef(Boolean(link));
  useEffect(() => {
    if (!editor) return;
    const isOurs = isExample(query) && (!variables || variables === filledIn(storage)[query]);
    if (asLinked.current || !isOurs) {
      asLinked.current = false;
      return;
    }
    let isShown = true;
    valuesOf(url, parsed(headers?.getValue())).then((values) => {
      const text = variablesOf(query, values);
      if (!isShown || !text) return;
      storage.set(FILLED, JSON.stringify({ ...filledIn(storage), [query]: text }));
      editor.setValue(text);
    });
    return () => {
      isShown = false;
    };
  }, [id, editor]);
}

const filledIn = (storage) => JSON.parse(storage.get(FILLED) ?? "{}");

function parsed(text) {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return {};
  }
}

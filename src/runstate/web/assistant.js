// Shows nothing: runs the greeting, keeps the address a link to the tab, and fills in the variables of examples.
import { useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useRef } from "react";
import { GREETING, isExample, valuesOf, variablesOf } from "./examples.js";
import { linkTo } from "./link.js";

const FILLED = "filled"; // where is kept what was filled in: whoever changed it keeps the change
const PAUSE = 300; // milliseconds without a change after which the address follows

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

// What a link says is shown as it is; other examples get values whenever they are shown.
function useVariables({ id, query, variables }, url, link) {
  const storage = useGraphiQL((state) => state.storage);
  const editor = useGraphiQL((state) => state.variableEditor);
  const headers = useGraphiQL((state) => state.headerEditor);
  const asLinked = useRef(Boolean(link));
  useEffect(() => {
    if (!editor) return;
    const filled = JSON.parse(storage.get(FILLED) ?? "{}");
    const isOurs = isExample(query) && (!variables || variables === filled[query]);
    if (asLinked.current || !isOurs) {
      asLinked.current = false;
      return;
    }
    let isShown = true;
    valuesOf(url, parsed(headers?.getValue())).then((values) => {
      const text = variablesOf(query, values);
      if (!isShown || !text) return;
      storage.set(FILLED, JSON.stringify({ ...filled, [query]: text }));
      editor.setValue(text);
    });
    return () => {
      isShown = false;
    };
  }, [id, editor]);
}

function parsed(text) {
  try {
    return JSON.parse(text || "{}");
  } catch {
    return {};
  }
}

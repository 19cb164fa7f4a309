// The page: GraphiQL on this server, with ready queries in its tabs.
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import { createElement } from "react";
import { const page = {
  fetcher,
  defaultTabs: await readyTabs(url),
  defaultEditorToolsVisibility: "variables",
};
createRoot(document.getElementById("graphiql")).render(createElement(GraphiQL, page, logo));

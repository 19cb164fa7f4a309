// The page: GraphiQL for this server, with example queries in its tabs.
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import "./page.css";
import { readyTabs } from "./tabs.js";

const url = new URL("../graphql", location.href);
const socket = new URL(url);
socket.protocol = url.protocol.replace("http", "ws");

// The toolkit sends the headers of the header editor with each request, and in connection_init of each subscription.
const fetcher = createGraphiQLFetcher({
  url: url.href,
  subscriptionUrl: socket.href,
  enableIncrementalDelivery: false,
});

const page = {
  fetcher,
  defaultTabs: await readyTabs(url),
  defaultEditorToolsVisibility: "variables",
};
const logo = createElement(GraphiQL.Logo, { key: "logo" }, "runstate");
createRoot(document.getElementById("graphiql")).render(createElement(GraphiQL, page, logo));

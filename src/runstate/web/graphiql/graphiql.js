// The page: GraphiQL for this server, with example queries in its tabs.
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import { Assistant } from "./assistant.js";
import { exampleTabs, remember } from "./examples.js";
import { linked } from "./link.js";
import "./style.css";

const url = new URL("../graphql", location.href);
const socket = new URL(url);
socket.protocol = url.protocol.replace("http", "ws");

// The toolkit sends the headers of the header editor with each request, and in connection_init of each subscription.
const send = createGraphiQLFetcher({
  url: url.href,
  subscriptionUrl: socket.href,
  enableIncrementalDelivery: false,
});

async function fetcher(...request) {
  const answer = await send(...request);
  remember(answer.data);
  return answer;
}

const link = linked(location);
const examples = exampleTabs();
const page = {
  fetcher,
  initialQuery: link?.query,
  initialVariables: link?.variables,
  defaultTabs: link ? [link, ...examples] : examples,
  defaultEditorToolsVisibility: "variables",
};
const logo = createElement(GraphiQL.Logo, { key: "logo" }, "runstate");
const assistant = createElement(Assistant, { key: "assistant", url, link });
createRoot(document.getElementById("graphiql")).render(createElement(GraphiQL, page, [logo, assistant]));

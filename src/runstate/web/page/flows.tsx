// All flows.
import { cancelUnfinished } from "./doing.ts";
import { FlowsDocument } from "./documents.ts";
import { type Keys, useCursor } from "./keyboard.ts";
import { Ago, Listed, Squares, Tags } from "./parts.tsx";
import { useQuery } from "./query.ts";
import { may } from "./rights.ts";
import { go, href } from "./router.ts";
import { useTitle } from "./shell.tsx";
import { useSignal } from "./signal.ts";

export function Flows() {
  useTitle("Flows");
  const query = useQuery(FlowsDocument, { first: 100, after: null }, { main: true, gap: 3000, matters: ({ runKind }) => runKind === "FLOW_RUN", events: ["runstate.flow.*"] });
  const all = query.data?.flows.nodes ?? [];
  const rights = useSignal(may);
  // Without a chosen row, keys act on the first.
  const cursor = useCursor(
    all.map(({ name }) => name),
    (index): Keys => {
      const flow = all[Math.max(0, index)];
      return flow ? { Enter: () => go(href(["flows", flow.name])), C: () => rights.propose && cancelUnfinished(flow) } : {};
    },
  );
  return (
    <>
      <h1>Flows</h1>
      <Listed
        query={query}
        of={({ flows }) => flows.nodes}
        empty={
          <>
            No flows yet. <code>runstate demo</code> makes some.
          </>
        }
      >
        {(nodes, { flows }) => (
          <div class="scroll" tabIndex={0} role="region" aria-label="Flows">
            <table>
              <thead>
                <tr>
                  <th scope="col">flow</th>
                  <th scope="col">last 20 runs</th>
                  <th scope="col" class="number">
                    runs
                  </th>
                  <th scope="col" class="wide">deployments</th>
                  <th scope="col" class="wide">tags</th>
                  <th scope="col" class="number">
                    last change
                  </th>
                </tr>
              </thead>
              <tbody>
                {nodes.map(({ id, name, tags, all, flowRuns, deployments }, index) => (
                  <tr key={id} class={index === cursor ? "is-current" : ""}>
                    <th scope="row">
                      <a href={href(["flows", name])}>{name}</a>
                    </th>
                    <td>
                      <Squares runs={[...flowRuns.nodes].reverse()} label={`Last runs of ${name}`} />
                    </td>
                    <td class="number">{all.totalCount.toLocaleString("en")}</td>
                    <td class="wide">
                      {deployments.nodes.map((each) => (
                        <a key={each.id} href={href(["deployments"], { name: each.name })}>
                          {each.name}{" "}
                        </a>
                      ))}
                    </td>
                    <td class="wide">
                      <Tags tags={tags} />
                    </td>
                    <td class="number">
                      <Ago time={flowRuns.nodes[0]?.stateTimestamp} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
            {flows.pageInfo.hasNextPage && <p class="faint">The 100 flows with the newest runs.</p>}
          </div>
        )}
      </Listed>
    </>
  );
}

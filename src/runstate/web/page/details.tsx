// Artifacts of a run. Images and links of other hosts are shown as links: the page loads nothing from elsewhere.
import { useEffect, useState } from "preact/hooks";
import { follow } from "./client.ts";
import { ProgressDocument } from "./documents.ts";
import { Ago, Empty, isEmpty, Json } from "./parts.tsx";
import type { OneRun } from "./run.tsx";

type Artifact = OneRun["artifacts"]["nodes"][number];

export function Details({ run }: { run: OneRun }) {
  if (!run.artifacts.nodes.length) return <Empty>No artifacts.</Empty>;
  return (
    <ul class="artifacts">
      {run.artifacts.nodes.map((artifact) => (
        <li key={artifact.id}>
          <h2>
            {artifact.key ?? artifact.description ?? artifact.type ?? "artifact"}
            <span class="faint">
              {[" ", artifact.type, artifact.taskRun?.name].filter(Boolean).join(" · ")} · <Ago time={artifact.created} />
            </span>
          </h2>
          <Content artifact={artifact} isLive={!run.endTime} />
        </li>
      ))}
    </ul>
  );
}

function Content({ artifact, isLive }: { artifact: Artifact; isLive: boolean }) {
  const { id, content, data, description, key } = artifact;
  if (!content) return isEmpty(data) ? null : <Json value={data} />;
  if (content.__typename === "MarkdownContent") return <pre class="text">{content.markdown}</pre>;
  if (content.__typename === "ProgressContent") return <Progress id={id} read={content.percent} label={description ?? key ?? "progress"} isLive={isLive} />;
  if (content.__typename === "TableContent") return <Table content={content} />;
  if (content.__typename === "ImageContent") return <External url={content.image} text={description ?? content.image} />;
  if (content.__typename === "LinkContent") return <External url={content.link} text={content.text ?? content.link} />;
  return <Json value={data} />;
}

/** How far something is. It moves while the run does; no transition tells that. */
function Progress({ id, read, label, isLive }: { id: string; read: number; label: string; isLive: boolean }) {
  const [told, setTold] = useState<number>();
  useEffect(() => {
    if (!isLive) return setTold(undefined);
    return follow(
      ProgressDocument,
      () => ({ id }),
      ({ artifact }) => setTold(artifact?.content && "percent" in artifact.content ? artifact.content.percent : undefined),
    );
  }, [id, isLive]);
  const percent = told ?? read;
  return (
    <p class="progress">
      <progress value={percent} max={100} aria-label={label} /> {percent} %
    </p>
  );
}

function External({ url, text }: { url: string; text: string }) {
  const isWeb = /^https?:/.test(url);
  if (!isWeb) return <span>{text}</span>;
  return (
    <a href={url} rel="noreferrer noopener" target="_blank">
      {text} ↗
    </a>
  );
}

function Table({ content: { columns, rows, rowCount } }: { content: { columns: string[]; rows: unknown[][]; rowCount: number } }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, 100).map((row, index) => (
            <tr key={index}>
              {row.map((cell, column) => (
                <td key={columns[column]}>{typeof cell === "string" ? cell : JSON.stringify(cell)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {rowCount > 100 && <p class="faint">100 of {rowCount} rows</p>}
    </div>
  );
}

// A filter as chips: each can be removed, and others added.
import { useState } from "preact/hooks";
import { type Filters, SORTS } from "./filters.ts";
import { type Params, setParams } from "./router.ts";

type Props = { params: Params; filters: Filters<unknown>; sort?: string };

export function Chips({ params, filters, sort }: Props) {
  const given = Object.entries(params).filter(([name]) => name in filters);
  return (
    <div class="chips" role="group" aria-label="Filter">
      {given.map(([name, text]) => (
        <span key={name} class="chip">
          <span class="faint">{filters[name]?.label}:</span> {text.length > 40 ? `${text.slice(0, 40)}…` : text.replaceAll(",", ", ")}
          <button type="button" aria-label={`Remove the filter ${filters[name]?.label}`} onClick={() => setParams({ [name]: undefined })}>
            ×
          </button>
        </span>
      ))}
      <Adding filters={filters} />
      {sort && (
        <label class="sort">
          <span class="unseen">Order</span>
          <select value={sort} onChange={(event) => setParams({ sort: event.currentTarget.value })}>
            {Object.entries(SORTS).map(([name, label]) => (
              <option key={name} value={name}>
                {label}
              </option>
            ))}
          </select>
        </label>
      )}
    </div>
  );
}

function Adding({ filters }: { filters: Filters<unknown> }) {
  const [name, setName] = useState(Object.keys(filters)[0] ?? "");
  const [text, setText] = useState("");
  const hint = filters[name]?.hint ?? "";
  return (
    <form
      class="adding"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) setParams({ [name]: text.trim() });
        setText("");
      }}
    >
      <select aria-label="Filter by" value={name} onChange={(event) => setName(event.currentTarget.value)}>
        {Object.entries(filters).map(([each, { label }]) => (
          <option key={each} value={each}>
            {label}
          </option>
        ))}
      </select>
      <input
        id="filter"
        aria-label={`Value of the filter ${filters[name]?.label}`}
        placeholder={hint}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <button type="submit">Add</button>
    </form>
  );
}

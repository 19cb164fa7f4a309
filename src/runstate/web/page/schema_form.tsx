// A form from a JSON schema: one field for each property of a simple type, JSON for everything else.
import { useState } from "preact/hooks";

type Property = { type?: string; title?: string; description?: string; enum?: unknown[]; default?: unknown };
export type JsonSchema = { properties?: Record<string, Property>; required?: string[] };

export const isSchema = (value: unknown): value is JsonSchema =>
  typeof value === "object" && value !== null && typeof (value as JsonSchema).properties === "object";

export const defaults = (schema: unknown, values: unknown): Record<string, unknown> => {
  const given = typeof values === "object" && values !== null ? (values as Record<string, unknown>) : {};
  if (!isSchema(schema)) return given;
  const entries = Object.entries(schema.properties ?? {}).flatMap(([name, { default: value }]) => (value === undefined ? [] : [[name, value] as const]));
  return { ...Object.fromEntries(entries), ...given };
};

type Props = { schema: unknown; value: Record<string, unknown>; onChange: (value: Record<string, unknown>) => void; onInvalid: (isInvalid: boolean) => void };

export function SchemaForm({ schema, value, onChange, onInvalid }: Props) {
  if (!isSchema(schema)) return <JsonField label="Values (JSON)" value={value} onChange={(next) => onChange(next as Record<string, unknown>)} onInvalid={onInvalid} />;
  return (
    <>
      {Object.entries(schema.properties ?? {}).map(([name, property]) => (
        <Field
          key={name}
          name={name}
          property={property}
          required={schema.required?.includes(name) ?? false}
          value={value[name]}
          onChange={(next) => onChange(without(value, name, next))}
          onInvalid={onInvalid}
        />
      ))}
    </>
  );
}

function without(value: Record<string, unknown>, name: string, next: unknown): Record<string, unknown> {
  const { [name]: _, ...rest } = value;
  return next === undefined ? rest : { ...rest, [name]: next };
}

type FieldProps = { name: string; property: Property; required: boolean; value: unknown; onChange: (value: unknown) => void; onInvalid: (isInvalid: boolean) => void };

function Field({ name, property, required, value, onChange, onInvalid }: FieldProps) {
  const label = `${property.title ?? name}${required ? " (required)" : ""}`;
  if (property.enum) {
    return (
      <label>
        {label}
        <select value={JSON.stringify(value)} onChange={(event) => onChange(event.currentTarget.value ? JSON.parse(event.currentTarget.value) : undefined)}>
          <option value="">–</option>
          {property.enum.map((each) => (
            <option key={String(each)} value={JSON.stringify(each)}>
              {String(each)}
            </option>
          ))}
        </select>
      </label>
    );
  }
  if (property.type === "boolean") {
    return (
      <label class="inline">
        <input type="checkbox" checked={value === true} onChange={(event) => onChange(event.currentTarget.checked)} /> {label}
      </label>
    );
  }
  if (property.type === "integer" || property.type === "number") {
    return (
      <label>
        {label}
        <input
          type="number"
          step={property.type === "integer" ? 1 : "any"}
          required={required}
          value={value === undefined ? "" : String(value)}
          onInput={(event) => onChange(event.currentTarget.value === "" ? undefined : Number(event.currentTarget.value))}
        />
      </label>
    );
  }
  if (property.type === "string") {
    return (
      <label>
        {label}
        <input required={required} value={value === undefined ? "" : String(value)} onInput={(event) => onChange(event.currentTarget.value || undefined)} />
        {property.description && <small class="faint">{property.description}</small>}
      </label>
    );
  }
  return <JsonField label={`${label} (JSON)`} value={value} onChange={onChange} onInvalid={onInvalid} />;
}

function JsonField({ label, value, onChange, onInvalid }: { label: string; value: unknown; onChange: (value: unknown) => void; onInvalid: (isInvalid: boolean) => void }) {
  const [text, setText] = useState(() => (value === undefined ? "" : JSON.stringify(value, null, 2)));
  const [problem, setProblem] = useState("");
  const read = (next: string) => {
    setText(next);
    try {
      onChange(next.trim() ? JSON.parse(next) : undefined);
      setProblem("");
      onInvalid(false);
    } catch (error) {
      setProblem((error as Error).message);
      onInvalid(true);
    }
  };
  return (
    <label>
      {label}
      <textarea rows={5} spellcheck={false} value={text} onInput={(event) => read(event.currentTarget.value)} />
      {problem && <small class="problem">{problem}</small>}
    </label>
  );
}

// A table whose rows are drawn only where they are seen. All rows have the same height.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export const HEIGHT = 32; // pixels of a row, as in the style sheet
const AROUND = 8; // rows that are drawn above and below what is seen

type Props<Row> = {
  rows: readonly Row[];
  row: (row: Row, index: number) => ComponentChildren;
  head: ComponentChildren;
  label: string;
  current?: number;
  onEnd?: () => void;
  hasMore?: boolean;
  onScroll?: (top: number) => void;
};

/** Return the first and the last row to draw. */
export function range(top: number, height: number, count: number): [number, number] {
  const first = Math.max(0, Math.floor(top / HEIGHT) - AROUND);
  return [first, Math.min(count, Math.ceil((top + height) / HEIGHT) + AROUND)];
}

export function Window<Row extends { id: string }>({ rows, row, head, label, current, onEnd, hasMore, onScroll }: Props<Row>) {
  const scroller = useRef<HTMLDivElement>(null);
  const [[first, last], setRange] = useState<[number, number]>([0, 60]);
  const measure = () => {
    const element = scroller.current;
    if (!element) return;
    const next = range(element.scrollTop, element.clientHeight, rows.length);
    setRange((before) => (before[0] === next[0] && before[1] === next[1] ? before : next));
    onScroll?.(element.scrollTop);
    if (hasMore && next[1] >= rows.length - 20) onEnd?.();
  };
  useEffect(measure, [rows.length]);
  useEffect(() => {
    addEventListener("resize", measure);
    return () => removeEventListener("resize", measure);
  });
  useEffect(() => {
    const element = scroller.current;
    if (!element || current === undefined || current < 0) return;
    const top = current * HEIGHT;
    const visible = element.clientHeight - 2 * HEIGHT;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top > element.scrollTop + visible) element.scrollTop = top - visible;
  }, [current]);
  const to = Math.min(last, rows.length);
  return (
    <div class="window" ref={scroller} onScroll={measure} tabIndex={0} role="region" aria-label={label}>
      <table aria-rowcount={hasMore ? -1 : rows.length + 1}>
        <thead>{head}</thead>
        <tbody>
          <Space height={first * HEIGHT} />
          {rows.slice(first, to).map((each, index) => (
            <tr key={each.id} aria-rowindex={first + index + 2} class={first + index === current ? "is-current" : ""}>
              {row(each, first + index)}
            </tr>
          ))}
          <Space height={Math.max(0, rows.length - to) * HEIGHT} />
        </tbody>
      </table>
    </div>
  );
}

const Space = ({ height }: { height: number }) =>
  height ? (
    <tr aria-hidden="true" class="space">
      <td style={{ height: `${height}px` }} />
    </tr>
  ) : null;

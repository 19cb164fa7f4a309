// The filter of the events: its parameters, its condition, and the names that the page follows for it.
import type { EventWhere } from "./documents.ts";
import { type Filters, list, since, whereBy } from "./filters.ts";
import type { Params } from "./router.ts";

export const FILTERS_OF_EVENTS: Filters<EventWhere> = {
  name: { label: "name", hint: "runstate.flow-run.*", where: (text) => ({ nameMatches: list(text) }) },
  resource: { label: "resource", hint: "order.17", where: (text) => ({ anyResource: { resourceId: { in: list(text) } } }) },
  text: { label: "text", hint: "reset", where: (text) => ({ text }) },
  occurred: { label: "in the last", hint: "1h", where: (text) => ({ occurred: since(text) ?? {} }) },
};

export const eventsWhere = (params: Params): EventWhere => whereBy(FILTERS_OF_EVENTS, params);

export const patternsOf = ({ name }: Params): string[] => list(name ?? "");

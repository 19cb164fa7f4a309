// The address of the page contains the query and the variables of the tab after "#", which browsers do not send.
export function linked({ hash, search }) {
  const { query, variables = "" } = Object.fromEntries(new URLSearchParams(hash.slice(1) || search));
  return query ? { query, variables } : undefined;
}

export function linkTo({ query, variables }) {
  const said = Object.entries({ query, variables }).filter(([, text]) => text);
  return said.length ? `${location.pathname}#${new URLSearchParams(said)}` : location.pathname;
}

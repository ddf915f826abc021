// What the page says in words: the cell, the worst cells, the map's facts.

/** All that is known of a cell: theory first, then a column a method. */
function cell(i, j) {
  const along = methodDim(map);
  const methods = (along ? along.values : map.methods).map((name) => name || "value");
  const body = el("cell").tBodies[0];
  const wide = (label, text) => {
    const head = made("th", { scope: "row", textContent: label });
    return made("tr", {}, head, made("td", { colSpan: methods.length, textContent: text }));
  };
  const rows = [wide("first-moment decay b1", decay(map.b1.values[i])),
    wide("second-moment decay b2", decay(map.b2.values[j])),
    ...theoryRows(wide, i, j)];
  const places = methods.map((_, k) =>
    offset(map, along ? { ...state.at, [along.name]: k } : state.at, i, j));
  const perMethod = (label, texts) => made("tr", {},
    made("th", { scope: "row", textContent: label }),
    ...texts.map((textContent) => made("td", { textContent })));
  rows.push(made("tr", { className: "head" }, made("th", { scope: "row", textContent: "measured" }),
    ...methods.map((name) => made("th", { scope: "col", textContent: name }))));
  for (const metric of map.metrics) {
    rows.push(perMethod(labelOf(metric), places.map((at) => shown(metric.values[at]))));
    if (metric.name !== "max_update") continue;
    const share = places.map((at, k) => {
      const bound = boundOf(map, map.rules[along ? k : 0], i, j);
      return shown(metric.values[at] / bound);
    });
    rows.push(perMethod("… over its bound", share));
  }
  if (map.flags.unstable) {
    rows.push(perMethod("unstable", places.map((at) =>
      !answered(map, at) ? BLANK : map.flags.unstable[at] ? "yes" : "no")));
  }
  if (map.outcome) rows.push(perMethod("outcome", places.map((at) => outcomeOf(map, at).name)));
  body.replaceChildren(...rows);
  const texts = places.map((at) => outcomeOf(map, at)).filter((one) => one.text && one.name !== "successful");
  el("outcome").textContent = [...new Set(texts.map((one) => one.text))].join(" ");
}

/** With the unit, where there is one. */
function labelOf(metric) {
  return metric.units === "1" ? metric.label : `${metric.label}, ${metric.units}`;
}

function theoryRows(wide, i, j) {
  const rows = [wide("C, the paper's", shown(coefficient(map, "lag", i, j)))];
  const rates = [...new Set(map.rules.filter(Boolean).map((rule) => rule[1]))];
  for (const name of rates) {
    const c = coefficient(map, name, i, j);
    if (name !== "lag") rows.push(wide(`C of ${name} rates`, shown(c)));
    rows.push(wide(`growth rate, ${name} rates`, `${shown(-c / 2)} per step`));
  }
  const names = { discrete: "bound, optimizer (exact)", continuous: "bound, the paper's" };
  for (const [name, values] of Object.entries(map.bounds)) {
    const label = names[name] ?? `bound, ${name} rates`.replace("flow ", "flow of ");
    rows.push(wide(label, shown(values[i * map.size[1] + j], "beyond 1e308")));
  }
  return rows;
}

function worstTable() {
  const metric = map.metrics[state.metric];
  const among = map.stride === 1 ? "" : map.worst
    ? "; of the whole store: Show goes to the nearest cell of the map" : "; of the cells of the map";
  el("worst-caption").textContent = `Ranked by ${labelOf(metric)}${among}`;
  el("worst").tBodies[0].replaceChildren(...worst(map, state.at, metric, 10).map((one, k) => {
    const button = made("button", { type: "button", textContent: `Show ${k + 1}` });
    button.onclick = () => select(one.i, one.j);
    const texts = [decay(one.b1), decay(one.b2), shown(one.value), shown(one.c),
      shown(one.bound, "beyond 1e308"), one.outcome];
    return made("tr", {}, made("td", {}, button),
      ...texts.map((textContent) => made("td", { textContent })));
  }));
}

function facts() {
  const fixed = Object.entries(map.fixed).map(([name, value]) => `${name.replace("_", " ")} ${value}`);
  const thin = map.stride > 1 ? `, one in ${map.stride} of the store's a side` : "";
  el("map-title").textContent = map.title;
  const runs = methodDim(map) || !map.methods[0] ? [] : [`${map.methods[0]} runs`];
  el("map-facts").textContent = [`${map.size.join(" × ")} pairs of decays${thin}`,
    ...runs, `${map.steps} steps`, ...fixed, `store ${map.store}`].join("; ");
  el("map-command").textContent = map.command;
  el("map-git").textContent = map.git && `, commit ${map.git}`;
}

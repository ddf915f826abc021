// Sliders, boxes and buttons: what they show, and what they change.

/** A slider, the one that is there where it is the same: one that is dragged must stay. */
function slider(id, name, label, values, at, change) {
  const key = JSON.stringify([name, label, values]);
  let box = el(id)?.parentElement;
  if (box?.dataset.key !== key) {
    const input = made("input", {
      type: "range", id, min: 0, max: Math.max(values.length - 1, 0), step: 1,
      disabled: values.length < 2,
    });
    input.oninput = () => change(Number(input.value));
    const output = made("output");
    output.htmlFor = id;
    const text = made("label", { htmlFor: id, textContent: label });
    box = made("div", { className: "control" }, text, input, output);
    box.dataset.key = key;
  }
  const [, input, output] = box.children;
  // With changes to come it is on its way to somewhere else.
  if (!waiting.length) input.value = at;
  output.textContent = values[at] ?? BLANK;
  input.setAttribute("aria-valuetext", output.textContent);
  return box;
}

/** Puts in place what is not; what is stays untouched, and keeps the focus. */
function arrange(holder, parts) {
  for (const old of [...holder.children]) if (!parts.includes(old)) old.remove();
  parts.forEach((part, k) => {
    if (holder.children[k] !== part) holder.insertBefore(part, holder.children[k] ?? null);
  });
}

function controls() {
  const focus = document.activeElement?.id;
  const titles = report.maps.map((one) => one.title);
  const parts = [slider("problem", "", "problem", titles, state.map,
    (at) => update(() => choose(at)))];
  for (const dim of map.dims) {
    parts.push(slider(`dim-${map.dims.indexOf(dim)}`, dim.name, dim.label, dim.values, state.at[dim.name],
      (at) => update(() => { if (dim.name in state.at) state.at[dim.name] = at; })));
  }
  if (!map.dims.some((dim) => dim.name === "learning_rate")) {
    parts.push(slider("eta", "", "learning rate η", [onlyRate()], 0, () => {}));
  }
  arrange(el("sliders"), parts);
  if (focus && document.activeElement?.id !== focus) el(focus)?.focus();
  const metric = el("metric");
  const labels = map.metrics.map((one) => one.label);
  if ([...metric.options].map((one) => one.textContent).join("\n") !== labels.join("\n")) {
    metric.replaceChildren(...labels.map((textContent, value) => made("option", { value, textContent })));
  }
  metric.value = state.metric;
  for (const box of document.querySelectorAll("input[data-layer]")) {
    box.checked = state.layers.has(box.dataset.layer);
    box.disabled = box.dataset.layer === "unstable" && !map.flags.unstable;
    box.parentElement.title = box.disabled ? "This store does not say which cells are unstable." : "";
  }
}

/** Why there is nothing to slide. */
function onlyRate() {
  const rate = map.fixed.learning_rate;
  return rate === undefined ? "without influence: the gradients are given" : `${rate}, the only one here`;
}

function layerBoxes() {
  el("layers").append(...Object.entries(LAYERS).map(([name, text]) => {
    const box = made("input", { type: "checkbox", id: `layer-${name}` });
    box.dataset.layer = name;
    box.onchange = () => update(() => state.layers[box.checked ? "add" : "delete"](name));
    return made("label", { htmlFor: box.id }, box, made("span", { className: `key ${name}` }), ` ${text}`);
  }));
}

function applyTheme() {
  const root = document.documentElement;
  if (state.theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = state.theme;
  el("theme").textContent = `Theme: ${state.theme}`;
}

// ---------------------------------------------------------------- downloads

function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  made("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function fileName() {
  const parts = [map.name, ...map.dims.map((dim) => dim.values[state.at[dim.name]])];
  return parts.join("-").replace(/[^A-Za-z0-9.=-]+/g, "_").slice(0, 80);
}

function download(kind) {
  if (kind === "png" || kind === "svg") {
    Plotly.downloadImage(printed(), { format: kind, width: 900, height: 960, filename: fileName() });
    return;
  }
  const rows = table(map, state.at);
  const about = { title: map.title, steps: map.steps, fixed: map.fixed, at: view(),
    relative_error: report.precision, store: map.store, command: map.command, git: map.git };
  if (kind === "csv") save(`${fileName()}.csv`, csv(rows), "text/csv");
  else save(`${fileName()}.json`, JSON.stringify({ about, rows }, plainNumber), "application/json");
}

function placeOf(dim) {
  const value = dim.values[state.at[dim.name]];
  return dim === methodDim(map) ? value : `${dim.label} ${value}`;
}

/** The figure with what the page says beside it: alone it would be of nobody knows what. */
function printed() {
  const runs = methodDim(map) ? [] : map.methods.filter(Boolean);
  const words = [map.title, ...runs, ...map.dims.map(placeOf), `${map.steps} steps`];
  if (map.fixed.learning_rate) words.push(`learning rate ${map.fixed.learning_rate}`);
  const lines = [words.join("; ")];
  if (state.layers.has("boundary")) lines.push(LAYERS.boundary);
  const others = [["unstable", "vermilion: measured unstable cells"], ["level", "thin: level curves of C"],
    ["normal", "green: normal curve through the default pair"]].filter(([name]) => state.layers.has(name))
    .filter(([name]) => name !== "unstable" || map.flags.unstable).map(([, words]) => words);
  if (others.length) lines.push(others.join("; "));
  // Above the colour scale, which takes 56 pixels.
  const note = { text: lines.map(escapedForPlotly).join("<br>"), showarrow: false, align: "left",
    xref: "paper", yref: "paper", x: 0, y: 1, xanchor: "left", yanchor: "bottom", yshift: 56 };
  const { data, layout: own } = el("map");
  const margin = { ...own.margin, t: 64 + 19 * lines.length };
  return { data, layout: { ...own, width: 900, height: 960, margin, annotations: [note] } };
}

function view() {
  return Object.fromEntries(map.dims.map((dim) => [dim.name, dim.values[state.at[dim.name]]]));
}

/** JSON has no infinity and no NaN. */
function plainNumber(key, value) {
  return typeof value === "number" && !Number.isFinite(value) ? csvNumber(value) || null : value;
}

// The page's state, its controls, and what they change.

const LAYERS = {
  boundary: "theory's boundaries: b2 = b1² (dashed), b2 = b1/(2 − b1) (dotted)",
  level: "level curves of C",
  normal: "normal curve through the default pair",
  unstable: "measured unstable cells",
  default: "default pair (0.9, 0.999)",
};
const THEMES = ["auto", "light", "dark"];

let report = null;
let map = null;
const state = {
  map: 0, metric: 0, i: 0, j: 0, at: {}, theme: "auto",
  layers: new Set(["boundary", "unstable", "default"]),
};

const el = (name) => document.getElementById(name);

function made(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---------------------------------------------------------------- the address of a view

function address() {
  const words = new URLSearchParams();
  words.set("map", map.name);
  words.set("n", state.map);
  for (const dim of map.dims) words.set(`at.${dim.name}`, dim.values[state.at[dim.name]]);
  words.set("metric", map.metrics[state.metric]?.name ?? "");
  // In full: neighbours may differ in the last digits.
  words.set("b1", map.b1.values[state.i]);
  words.set("b2", map.b2.values[state.j]);
  words.set("layers", [...state.layers].join(" "));
  words.set("theme", state.theme);
  return `#${words}`;
}

function remember() {
  const here = address();
  el("permalink").href = here;
  if (location.hash !== here) history.replaceState(null, "", here);
}

/** What the address asks for; unknown words are left out. */
async function visit(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  const asked = Number(words.get("n") ?? 0);
  const named = report.maps.findIndex((one) => one.name === words.get("map"));
  const place = report.maps[asked]?.name === words.get("map") ? asked : Math.max(named, 0);
  if (words.has("layers")) {
    state.layers = new Set(words.get("layers").split(" ").filter((name) => Object.hasOwn(LAYERS, name)));
  }
  if (THEMES.includes(words.get("theme"))) state.theme = words.get("theme");
  await choose(place);
  for (const dim of map.dims) {
    const at = dim.values.indexOf(words.get(`at.${dim.name}`));
    if (at >= 0) state.at[dim.name] = at;
  }
  const metric = map.metrics.findIndex((one) => one.name === words.get("metric"));
  if (metric >= 0) state.metric = metric;
  state.i = nearest(map.b1.values, Number(words.get("b1") ?? 0.9));
  state.j = nearest(map.b2.values, Number(words.get("b2") ?? 0.999));
}

/** Another map: what it has in common with the one before stays as it is. */
async function choose(place) {
  const before = map;
  const kept = before && { b1: before.b1.values[state.i], b2: before.b2.values[state.j] };
  const metric = before?.metrics[state.metric]?.name;
  map = await opened(report, place);
  state.map = place;
  const at = {};
  for (const dim of map.dims) {
    const old = before?.dims.find((one) => one.name === dim.name);
    at[dim.name] = Math.max(0, dim.values.indexOf(old?.values[state.at[dim.name]]));
  }
  state.at = at;
  state.metric = Math.max(0, map.metrics.findIndex((one) => one.name === metric));
  state.i = nearest(map.b1.values, kept?.b1 ?? 0.9);
  state.j = nearest(map.b2.values, kept?.b2 ?? 0.999);
}

// ---------------------------------------------------------------- what is drawn

const waiting = [];
let drawing = null;

/** Makes a change, then draws; changes that come meanwhile are drawn together, in their order. */
function update(change) {
  waiting.push(change);
  drawing ??= drawn().finally(() => { drawing = null; });
  return drawing;
}

async function drawn() {
  while (waiting.length) {
    while (waiting.length) await waiting.shift()();
    await show();
  }
}

async function show() {
  controls();
  facts();
  applyTheme();
  await drawMap(el("map"), report, map, state);
  cell(state.i, state.j);
  await paths();
  worstTable();
  remember();
}

async function paths() {
  const note = el("paths-note");
  el("paths").hidden = !map.paths;
  if (!map.paths) {
    note.textContent = `No trajectories of this map: ${map.trajectories.why}.`;
    return;
  }
  const place = coarsePlace(map, state);
  const b1 = map.b1.values[map.paths.places.b1[place.b1]];
  const b2 = map.b2.values[map.paths.places.b2[place.b2]];
  const others = map.dims.filter((dim) => dim !== methodDim(map))
    .map((dim) => `${dim.label} ${dim.values[map.paths.places[dim.name][place[dim.name]]]}`);
  note.textContent = `Runs at ${[`b1 = ${decay(b1)}`, `b2 = ${decay(b2)}`, ...others].join(", ")}: ` +
    "of the pairs whose runs were kept, the one nearest to the chosen cell.";
  await drawPaths(el("paths"), map, state);
}

function select(i, j) {
  state.i = Math.min(Math.max(i, 0), map.size[0] - 1);
  state.j = Math.min(Math.max(j, 0), map.size[1] - 1);
  moveRing(el("map"), map, state);
  cell(state.i, state.j);
  paths();
  remember();
  const metric = map.metrics[state.metric];
  const place = offset(map, state.at, state.i, state.j);
  el("status").textContent = `b1 ${decay(map.b1.values[state.i])}, b2 ${decay(map.b2.values[state.j])}: ` +
    `${metric?.label ?? ""} ${shown(metric?.values[place])}, ${outcomeOf(map, place).name}`;
}

// ---------------------------------------------------------------- keys and pointer

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };

function keyboard(event) {
  const move = KEYS[event.key];
  if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const far = event.shiftKey ? 10 : 1;
  select(state.i + far * move[0], state.j + far * move[1]);
}

/** The cell under the pointer, by its place on the figure. */
function pointed(event) {
  const { x, y } = event.points[0];
  const at = (axis, wanted) => nearest(axis.values.map((b) => position(axis, b)), wanted);
  return [at(map.b1, x), at(map.b2, y)];
}

function hovered(event) {
  const [i, j] = pointed(event);
  cell(i, j);
  const metric = map.metrics[state.metric];
  const tip = el("tip");
  tip.textContent = `b1 ${decay(map.b1.values[i])}, b2 ${decay(map.b2.values[j])}: ` +
    shown(metric.values[offset(map, state.at, i, j)]);
  tip.hidden = false;
  const box = el("map").getBoundingClientRect();
  const left = Math.min(event.event.clientX - box.left + 14, box.width - tip.offsetWidth);
  tip.style.left = `${Math.max(left, 0)}px`;
  tip.style.top = `${event.event.clientY - box.top + 18}px`;
}

function unhovered() {
  el("tip").hidden = true;
  cell(state.i, state.j);
}

// ---------------------------------------------------------------- begin

async function plotly() {
  const source = new TextDecoder().decode(await inflated(el("plotly").textContent.trim(), "gzip"));
  document.head.append(made("script", { textContent: source }));
}

function listen() {
  el("metric").onchange = () => {
    const at = Number(el("metric").value);
    update(() => { state.metric = at; });
  };
  el("theme").onclick = () => update(() => {
    state.theme = THEMES[(THEMES.indexOf(state.theme) + 1) % THEMES.length];
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => update(() => {}));
  addEventListener("hashchange", () => {
    const hash = location.hash;
    if (hash.includes("=") && hash !== address()) update(() => visit(hash));
  });
  el("map").addEventListener("keydown", keyboard);
  el("map").on("plotly_hover", hovered);
  el("map").on("plotly_unhover", unhovered);
  el("map").on("plotly_click", (event) => select(...pointed(event)));
  for (const button of document.querySelectorAll("button[data-download]")) {
    button.onclick = () => download(button.dataset.download);
  }
  el("reset").onclick = () => Plotly.relayout(el("map"), {
    "xaxis.range": square(map.b1, "").range, "yaxis.range": square(map.b2, "").range,
  });
}

/** A document, the first or a newer one, at the view that is looked at. */
async function load(given) {
  const first = report === null;
  await update(async () => {
    const hash = first ? location.hash : address();
    report = given;
    map = null;
    await visit(hash);
  });
  if (first) listen();
}

async function begin() {
  const given = JSON.parse(el("report-data").textContent);
  layerBoxes();
  el("precision").textContent = given.precision.toExponential(1);
  try {
    await plotly();
    await load(given);
    document.documentElement.dataset.ready = "yes";
    el("loading").hidden = true;
  } catch (error) {
    el("loading").textContent = "The map cannot be drawn here: it needs a browser of 2023 or " +
      `later (${error.message}).`;
    console.error(error);
  }
}

window.report = { load, state, visit: (hash) => update(() => visit(hash)) };
begin();

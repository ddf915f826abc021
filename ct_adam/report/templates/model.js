// What the page says of a cell, from the document alone. Nothing here touches the page.

const NOT_DONE = 255;
const BLANK = "–";

/** A map whose arrays are read: `metrics`, `flags`, `outcome`, `bounds` and `paths` hold numbers. */
async function opened(report, place) {
  const map = report.maps[place];
  if (map.read) return map.read;
  const theory = report.theories[map.theory];
  const read = { ...map, rates: theory.rates, curves: theory.curves, bounds: {}, flags: {} };
  read.size = [map.b1.values.length, map.b2.values.length];
  const jobs = [];
  read.metrics = map.metrics.map((metric) => ({ ...metric }));
  for (const metric of read.metrics) jobs.push(put(metric, "values", metric.array));
  for (const [name, text] of Object.entries(map.flags)) jobs.push(put(read.flags, name, text));
  for (const [name, text] of Object.entries(theory.bounds)) jobs.push(put(read.bounds, name, text));
  if (map.outcome) {
    read.outcome = { ...map.outcome };
    jobs.push(put(read.outcome, "values", map.outcome.array));
  }
  if (map.trajectories.places) {
    read.paths = { ...map.trajectories };
    for (const name of ["update", "loss"]) {
      if (read.paths[name]) jobs.push(put(read.paths, name, map.trajectories[name]));
    }
  }
  if (map.worst) {
    read.worst = {};
    for (const [metric, cells] of Object.entries(map.worst)) {
      const own = (read.worst[metric] = { ...cells });
      for (const name of ["value", "c", "bound", "outcome"]) jobs.push(put(own, name, cells[name]));
    }
  }
  await Promise.all(jobs);
  map.read = read;
  return read;
}

async function put(owner, name, text) {
  owner[name] = await numbers(text);
}

/** Where a cell lies in the flat arrays, `at` being the place along each further dimension. */
function offset(map, at, i, j) {
  let place = 0;
  for (const dim of map.dims) place = place * dim.values.length + at[dim.name];
  return (place * map.size[0] + i) * map.size[1] + j;
}

/** C = 2a − b; at a decay of 0, whose rate is infinite, as ct.theory.stability_coefficient. */
function coefficient(map, rates, i, j) {
  const a = map.rates[rates].a[i];
  const b = map.rates[rates].b[j];
  if (a === null) return Infinity;
  return b === null ? -Infinity : 2 * a - b;
}

function methodDim(map) {
  return map.dims.find((dim) => dim.name === "side" || dim.name === "dynamics");
}

/** Of the method that is looked at: [kind, rates] of its bound, or null. */
function ruleOf(map, at) {
  const dim = methodDim(map);
  return map.rules[dim ? at[dim.name] : 0];
}

function boundOf(map, rule, i, j) {
  if (!rule) return NaN;
  const name = rule[0] === "flow" ? `flow ${rule[1]}` : rule[0];
  return map.bounds[name][i * map.size[1] + j];
}

function outcomeOf(map, place) {
  return namedOutcome(map, map.outcome ? map.outcome.values[place] : 0);
}

function namedOutcome(map, code) {
  if (!map.outcome) return { name: "", text: "" };
  if (code === NOT_DONE) return { name: "not done", text: "This lane has not run yet." };
  return { name: map.outcome.names[code] ?? `${code}`, text: map.outcome.texts[code] ?? "" };
}

/** False where a lane reached no end with a number. */
function answered(map, place) {
  return map.flags.answered ? map.flags.answered[place] === 1 : true;
}

/** Four digits; a number beyond the floating-point range is said to be that. */
function shown(x, beyond = "∞") {
  if (x === null || x === undefined || Number.isNaN(x)) return BLANK;
  if (!Number.isFinite(x)) return (x < 0 ? "−" : "") + beyond;
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    return x.toExponential(3).replace("e+", "e").replaceAll("-", "−");
  }
  return `${Number(x.toPrecision(4))}`.replace("-", "−");
}

/** A decay to five digits of its distance from 1. */
function decay(b) {
  const digits = b > 0.9 && b < 1 ? 4 - Math.floor(Math.log10(1 - b)) : 5;
  return `${Number(b.toFixed(Math.min(digits, 12)))}`;
}

function nearest(values, wanted) {
  let best = 0;
  values.forEach((value, k) => {
    if (Math.abs(value - wanted) < Math.abs(values[best] - wanted)) best = k;
  });
  return best;
}

/** Places on the figure: evenly, or evenly in ln(1 − b). */
function position(axis, b) {
  return axis.scale === "linear" ? b : -Math.log10(1 - b);
}

/** The cells of this view with the largest values, those without an answer left out: of the whole
store, where the document has them (ct_adam/report/worst.py). */
function worst(map, at, metric, count) {
  if (map.worst) return worstOfStore(map, at, map.worst[metric.name]);
  const [n, m] = map.size;
  const start = offset(map, at, 0, 0);
  const cells = [];
  for (let k = 0; k < n * m; k++) {
    const value = metric.values[start + k];
    if (Number.isNaN(value) || !answered(map, start + k)) continue;
    cells.push([value, k]);
  }
  // Of equal ones the first in b1, then in b2.
  cells.sort((x, y) => y[0] - x[0] || x[1] - y[1]);
  return cells.slice(0, count).map(([value, k]) => {
    const [i, j] = [Math.floor(k / m), k % m];
    return { value, i, j, b1: map.b1.values[i], b2: map.b2.values[j],
      c: coefficient(map, "lag", i, j), bound: boundOf(map, ruleOf(map, at), i, j),
      outcome: outcomeOf(map, start + k).name };
  });
}

function worstOfStore(map, at, kept) {
  const view = offset(map, at, 0, 0) / (map.size[0] * map.size[1]);
  return kept.b1[view].map((b1, k) => {
    const [b2, place] = [kept.b2[view][k], view * kept.b1[view].length + k];
    return { value: kept.value[place], b1, b2, i: nearest(map.b1.values, b1), j: nearest(map.b2.values, b2),
      c: kept.c[place], bound: kept.bound[place], outcome: namedOutcome(map, kept.outcome[place]).name };
  }).filter((one) => !Number.isNaN(one.value));
}

/** The view's numbers as rows, a cell each. */
function table(map, at) {
  const rule = ruleOf(map, at);
  const rows = [];
  for (let i = 0; i < map.size[0]; i++) {
    for (let j = 0; j < map.size[1]; j++) {
      const place = offset(map, at, i, j);
      const row = { b1: map.b1.values[i], b2: map.b2.values[j] };
      row.C_lag = coefficient(map, "lag", i, j);
      if (rule) row.bound = boundOf(map, rule, i, j);
      for (const metric of map.metrics) row[metric.name] = metric.values[place];
      for (const [name, flags] of Object.entries(map.flags)) row[name] = flags[place] === 1;
      if (map.outcome) row.outcome = outcomeOf(map, place).name;
      rows.push(row);
    }
  }
  return rows;
}

/** Spreadsheets take a cell that begins with one of these for a formula. */
function csvWord(value) {
  const text = typeof value === "number" ? csvNumber(value) : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** In full: a decay comes back as it was. */
function csvNumber(x) {
  return Number.isNaN(x) ? "" : Number.isFinite(x) ? `${x}` : x > 0 ? "inf" : "-inf";
}

function csv(rows) {
  const names = Object.keys(rows[0] ?? {});
  const lines = rows.map((row) => names.map((name) => csvWord(row[name])).join(","));
  return [names.map(csvWord).join(","), ...lines].join("\n") + "\n";
}

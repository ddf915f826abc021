// Plotly's picture of the map.

const INK = {
  boundary: ["#000000", "dash"],
  level: ["#333333", "solid"],
  normal: ["#009E73", "solid"],
  unstable: "#D55E00",
};
const TICKS = [0, 0.5, 0.7, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Edges of the cells, as half the distance to the neighbours; a decay lies in [0, 1]. */
function cellEdges(axis) {
  const edges = evenEdges(axis);
  return axis.scale === "linear" ? edges.map((x) => Math.min(Math.max(x, 0), 1)) : edges;
}

function evenEdges(axis) {
  const at = axis.values.map((b) => position(axis, b));
  const last = at.length - 1;
  if (last === 0) {
    // No neighbour: half way to the nearer end of [0, 1].
    const half = Math.min(at[0], 1 - at[0]) / 2 || 0.01;
    return [at[0] - half, at[0] + half];
  }
  const inner = at.slice(1).map((x, k) => (x + at[k]) / 2);
  return [2 * at[0] - inner[0], ...inner, 2 * at[last] - inner[last - 1]];
}

function square(axis, title) {
  const edges = cellEdges(axis);
  const range = [Math.min(edges[0], edges.at(-1)), Math.max(edges[0], edges.at(-1))];
  const ticks = axis.scale === "linear" ? {} : {
    tickvals: TICKS.map((b) => position(axis, b)),
    ticktext: TICKS.map(String), tickangle: 0,
  };
  return {
    title: { text: title, standoff: 8 }, range, ...ticks, zeroline: false, showgrid: false,
    ticks: "outside", tickcolor: colour("--line"), linecolor: colour("--line"), mirror: true,
    automargin: true, minallowed: range[0], maxallowed: range[1],
  };
}

function layout(extra) {
  return {
    paper_bgcolor: colour("--card"), plot_bgcolor: colour("--card"),
    font: { color: colour("--text"), size: 13, family: "system-ui, sans-serif" },
    margin: { l: 56, r: 8, t: 12, b: 48 }, showlegend: false, ...extra,
  };
}

/** Rows of b2 for Plotly: logarithms where the scale is one. */
function heat(map, at, metric) {
  const [n, m] = map.size;
  const start = offset(map, at, 0, 0);
  const rows = [];
  for (let j = 0; j < m; j++) {
    const row = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const place = start + i * m + j;
      const value = metric.values[place];
      const drawn = metric.scale === "log" ? Math.log10(value) : value;
      row[i] = answered(map, place) ? Math.min(Math.max(drawn, -1e300), 1e300) : NaN;
    }
    rows.push(row);
  }
  return rows;
}

/** 1e−6 and not 1.000e−6. */
function tick(x) {
  return shown(x).replace(/\.?0+e/, "e");
}

/** Decades of the colour scale, or round numbers to both sides of 0. */
function colourTicks(metric) {
  const [low, high] = metric.limits;
  if (metric.scale !== "log") {
    const unit = 10 ** (Math.floor(Math.log10(high)) - 1);
    const far = Math.floor(high / unit) * unit;
    const at = [-far, -far / 2, 0, far / 2, far];
    return { tickvals: at, ticktext: at.map(tick) };
  }
  const [first, last] = [Math.log10(low), Math.log10(high)];
  const step = Math.max(1, Math.ceil((last - first) / 5));
  const at = [];
  for (let k = Math.ceil(first - 1e-9); k <= last + 1e-9; k += step) at.push(k);
  if (at.length < 2) at.splice(0, at.length, first, last);
  return { tickvals: at, ticktext: at.map((k) => tick(10 ** k)) };
}

function heatTrace(report, map, state, metric) {
  const limits = metric.limits.map((x) => (metric.scale === "log" ? Math.log10(x) : x));
  return {
    type: "heatmap", x: cellEdges(map.b1), y: cellEdges(map.b2), z: heat(map, state.at, metric),
    zmin: limits[0], zmax: limits[1], colorscale: report.colours[metric.scale], zsmooth: false,
    hoverinfo: "none", hoverongaps: true, name: metric.label,
    colorbar: {
      orientation: "h", y: 1.01, yanchor: "bottom", thickness: 12, len: 1, ypad: 0, xpad: 0, ...colourTicks(metric),
      title: { text: escapedForPlotly(metric.label), side: "top", font: { size: 12 } },
      outlinewidth: 0, ticks: "outside", tickcolor: colour("--line"),
    },
  };
}

/** Plotly reads a few tags in its labels; those of a store are text. */
function escapedForPlotly(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function line(map, x, y, style) {
  return {
    type: "scatter", mode: "lines", hoverinfo: "skip", connectgaps: false,
    x: x.map((b) => (b === null ? null : position(map.b1, b))),
    y: y.map((b) => (b === null ? null : position(map.b2, b))), ...style,
  };
}

/** Of each curve a broad light line, as the map is dark in places, and the curve itself. */
function curveTraces(map, layers) {
  const drawn = map.curves.filter((curve) => layers.has(curve.kind));
  const dashes = ["dash", "dot", "dashdot"];
  let boundary = 0;
  return drawn.map((curve) => {
    const [ink, dash] = INK[curve.kind];
    const style = curve.kind === "boundary" ? dashes[boundary++ % 3] : dash;
    const width = curve.kind === "boundary" ? 2.2 : 1.4;
    const halo = line(map, curve.b1, curve.b2, {
      line: { color: "#ffffff", width: width + 2 }, opacity: 0.6,
    });
    const trace = line(map, curve.b1, curve.b2, {
      line: { color: ink, dash: style, width }, name: curve.name,
    });
    return [halo, curve.kind === "level" ? { ...trace, ...levelName(map, curve) } : trace];
  });
}

/** A level's value stands where its curve meets the middle of the map. */
function levelName(map, curve) {
  const within = (axis, b, end) => {
    const [low, high] = [cellEdges(axis)[0], cellEdges(axis).at(-1)];
    return position(axis, b) > low && position(axis, b) < low + end * (high - low);
  };
  const inside = curve.b2.map((b, k) => k)
    .filter((k) => within(map.b1, curve.b1[k], 0.9) && within(map.b2, curve.b2[k], 1));
  const at = inside[Math.floor(inside.length / 2)];
  return {
    mode: "lines+text", textposition: "middle right",
    textfont: { size: 12, color: "#000000", shadow: Array(6).fill("0 0 3px #fff").join(", ") },
    text: curve.b1.map((b, k) => (k === at ? curve.name.replace("C = ", "").replace("-", "−") : "")),
  };
}

/** More pieces than this take seconds to draw, and show nothing: the cells are too scattered. */
const MOST_PIECES = 4000;

/** A line along the edges of the cells that were measured unstable, and how many pieces it has;
no line where these are too many. */
function outline(map, at) {
  const [n, m] = map.size;
  const start = offset(map, at, 0, 0);
  const is = (i, j) =>
    i >= 0 && j >= 0 && i < n && j < m && map.flags.unstable[start + i * m + j] === 1;
  const [x, y] = [cellEdges(map.b1), cellEdges(map.b2)];
  const [xs, ys] = [[], []];
  for (let i = 0; i <= n; i++) {
    for (const [from, to] of runs(m, (j) => is(i, j) !== is(i - 1, j))) {
      xs.push(x[i], x[i], null);
      ys.push(y[from], y[to], null);
    }
  }
  for (let j = 0; j <= m; j++) {
    for (const [from, to] of runs(n, (i) => is(i, j) !== is(i, j - 1))) {
      xs.push(x[from], x[to], null);
      ys.push(y[j], y[j], null);
    }
  }
  const pieces = xs.length / 3;
  const line = { color: INK.unstable, width: 3.2 };
  const trace = { type: "scatter", mode: "lines", x: xs, y: ys, line, hoverinfo: "skip" };
  return { pieces, trace: pieces > MOST_PIECES ? null : trace };
}

/** From where to where a condition holds without a break. */
function runs(count, holds) {
  const found = [];
  for (let k = 0, from = -1; k <= count; k++) {
    const here = k < count && holds(k);
    if (here && from < 0) from = k;
    if (!here && from >= 0) {
      found.push([from, k]);
      from = -1;
    }
  }
  return found;
}

function cellTrace(map, state) {
  return {
    type: "scatter", mode: "markers", hoverinfo: "skip", cliponaxis: false,
    x: [position(map.b1, map.b1.values[state.i])], y: [position(map.b2, map.b2.values[state.j])],
    marker: { symbol: "circle-open", size: 16, color: "#ffffff", line: { width: 6 } },
  };
}

function ringTrace(map, state) {
  const trace = cellTrace(map, state);
  return { ...trace, marker: { symbol: "circle-open", size: 16, color: "#000000", line: { width: 2.5 } } };
}

function defaultTrace(map) {
  return {
    type: "scatter", mode: "markers", hoverinfo: "skip", cliponaxis: false,
    x: [position(map.b1, 0.9)], y: [position(map.b2, 0.999)],
    marker: { symbol: "star", size: 13, color: "#E69F00", line: { width: 1, color: "#000000" } },
  };
}

function drawMap(target, report, map, state) {
  const metric = map.metrics[state.metric];
  const curves = curveTraces(map, state.layers);
  const traces = [heatTrace(report, map, state, metric), ...curves.map(([halo]) => halo)];
  const edge = state.layers.has("unstable") && map.flags.unstable ? outline(map, state.at) : null;
  if (edge?.trace) traces.push(edge.trace);
  el("outline-note").textContent = !edge || edge.trace ? "" : "The measured unstable cells are " +
    `scattered: their outline would have ${edge.pieces} pieces, and is not drawn.`;
  traces.push(...curves.map(([, curve]) => curve));
  if (state.layers.has("default")) traces.push(defaultTrace(map));
  traces.push(cellTrace(map, state), ringTrace(map, state));
  const fine = matchMedia("(pointer: fine)").matches;
  const picture = layout({
    xaxis: square(map.b1, "first-moment decay b1"),
    yaxis: square(map.b2, "second-moment decay b2"),
    plot_bgcolor: "#cccccc", margin: { l: 60, r: 26, t: 8, b: 48 },
    dragmode: fine ? "zoom" : false, uirevision: map.title,
  });
  return Plotly.react(target, traces, picture, { displayModeBar: false, responsive: true });
}

/** Only the ring moves. */
function moveRing(target, map, state) {
  const rings = [target.data.length - 2, target.data.length - 1];
  const { x, y } = cellTrace(map, state);
  return Plotly.restyle(target, { x: [x, x], y: [y, y] }, rings);
}

// Plotly's picture of trajectories: those of the coarse grid's pair that is nearest to the cell.

const PATH_INKS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/** The coarse grid's place that is nearest to a cell, and along the other dimensions. */
function coarsePlace(map, state) {
  const places = map.paths.places;
  const found = {};
  for (const dim of map.dims) found[dim.name] = nearest(places[dim.name], state.at[dim.name]);
  for (const [name, own] of [["b1", state.i], ["b2", state.j]]) {
    const at = places[name].map((k) => position(map[name], map[name].values[k]));
    found[name] = nearest(at, position(map[name], map[name].values[own]));
  }
  return found;
}

function pathOf(map, values, place, dims) {
  const count = map.paths.steps.length;
  let start = 0;
  for (const name of dims) start = start * map.paths.places[name].length + place[name];
  return Array.from(values.subarray(start * count, (start + 1) * count));
}

function pathTraces(map, state) {
  const place = coarsePlace(map, state);
  const dims = [...map.dims.map((dim) => dim.name), "b1", "b2"];
  const along = methodDim(map);
  const names = along ? along.values : map.methods;
  const traces = [];
  names.forEach((name, k) => {
    const here = along ? { ...place, [along.name]: k } : place;
    const style = {
      type: "scatter", mode: "lines", x: map.paths.steps, name: escapedForPlotly(name),
      line: { color: PATH_INKS[k % PATH_INKS.length], dash: k ? "dash" : "solid", width: 2 }, legendgroup: name,
    };
    traces.push({ ...style, y: positive(pathOf(map, map.paths.update, here, dims)) });
    if (!map.paths.loss) return;
    const loss = positive(pathOf(map, map.paths.loss, here, dims));
    traces.push({ ...style, y: loss, xaxis: "x2", yaxis: "y2", showlegend: false });
  });
  return traces;
}

/** Powers of ten, or 1, 2 and 5 of each where there are few. */
function logTicks(traces, axis) {
  const seen = traces.filter((trace) => (trace.yaxis ?? "y") === axis)
    .flatMap((trace) => trace.y).filter((y) => y !== null);
  if (!seen.length) return {};
  const [low, high] = [Math.log10(Math.min(...seen)), Math.log10(Math.max(...seen))];
  const step = Math.max(1, Math.ceil((high - low) / 6));
  const few = high - low < 2.5 ? (high - low < 0.3 ? [1, 1.2, 1.5, 2, 3, 5, 7] : [1, 2, 5]) : [1];
  const tickvals = [];
  for (let k = Math.floor(low); k <= high; k++) {
    if (k % step === 0 || few.length > 1) tickvals.push(...few.map((digit) => digit * 10 ** k));
  }
  return { tickvals, ticktext: tickvals.map(tick) };
}

/** What a logarithmic axis can show. */
function positive(values) {
  return values.map((x) => (x > 0 && Number.isFinite(x) ? x : null));
}

function drawPaths(target, map, state) {
  const both = Boolean(map.paths.loss);
  const narrow = target.clientWidth < 560;
  const [left, right] = both && !narrow ? [[0, 0.44], [0.56, 1]] : [[0, 1], [0, 1]];
  const [upper, lower] = both && narrow ? [[0.6, 1], [0, 0.4]] : [[0, 1], [0, 1]];
  const axis = { gridcolor: colour("--grid"), zeroline: false, linecolor: colour("--line") };
  const steps = { ...axis, title: { text: "optimizer steps" } };
  const logs = { ...axis, type: "log", automargin: true };
  const picture = layout({
    showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    margin: { l: 60, r: 8, t: 36, b: 44 }, height: both && narrow ? 520 : 280,
    xaxis: { ...steps, domain: left, anchor: "y" },
    yaxis: { ...logs, domain: upper, title: { text: "size of the update ‖u‖<sub>∞</sub>" } },
  });
  if (both) {
    picture.xaxis2 = { ...steps, domain: right, anchor: "y2" };
    picture.yaxis2 = { ...logs, domain: lower, anchor: "x2", title: { text: "loss" } };
  }
  const traces = pathTraces(map, state);
  Object.assign(picture.yaxis, logTicks(traces, "y"));
  if (both) Object.assign(picture.yaxis2, logTicks(traces, "y2"));
  return Plotly.react(target, traces, picture, { displayModeBar: false, responsive: true });
}

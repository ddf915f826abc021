// A page that is served: how far the sweeps are, their new tiles, and the stop button.

const LOOK = 1500;
const SLOW = 10000;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function growthCard() {
  const stop = made("button", { type: "button", id: "stop", textContent: "Stop the sweep", hidden: true });
  stop.onclick = stopSweep;
  const card = made("section", { id: "growth", className: "card" },
    made("h2", { id: "growth-title", textContent: "Progress" }), made("div", { id: "growth-stores" }),
    made("div", { className: "row" }, stop),
    made("p", { id: "growth-said", className: "soft", role: "status" }));
  card.setAttribute("aria-labelledby", "growth-title");
  card.setAttribute("role", "region");
  el("explorer").before(card);
}

/** 75 s, 12 min, 3.4 h. */
function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** No tile for longer than one takes. */
function still(store) {
  return store.grows && store.quiet > 20 && store.quiet > 3 * store.seconds / Math.max(store.done, 1);
}

/** After a stop: "asked", "still" once no tile comes any more, "" once it goes on. */
let stopping = "";

function followStop(stores) {
  const growing = stores.filter((store) => store.grows);
  const ended = growing.length > 0 && growing.every(still);
  if (stopping === "asked" && ended) stopping = "still";
  else if (!growing.length || (stopping === "still" && !ended)) {
    stopping = "";
    el("growth-said").textContent = "";
  }
}

function storeText(store) {
  if (store.done === undefined) return `${store.name}: complete.`;
  const count = store.total === null ? `${store.done}` : `${store.done} of ${store.total}`;
  const spent = `${store.name}: ${count} tiles, ${duration(store.seconds)} of work`;
  if (!store.grows) return `${spent}; complete.`;
  if (still(store)) {
    return `${spent}; no new tile for ${duration(store.quiet)}. Is a sweep running? ` +
      (store.resume ? `It goes on with: ${store.resume}` : "It goes on with the call that began it.");
  }
  return store.rest === null || stopping ? `${spent}.` : `${spent}; about ${duration(store.rest)} left.`;
}

function showProgress(stores) {
  const rows = el("growth-stores");
  while (rows.children.length < stores.length) {
    const label = made("p", { id: `grown-${rows.children.length}` });
    const bar = made("progress", {});
    bar.setAttribute("aria-labelledby", label.id);
    rows.append(made("div", {}, label, bar));
  }
  followStop(stores);
  stores.forEach((store, k) => {
    const [label, bar] = rows.children[k].children;
    label.textContent = storeText(store);
    bar.hidden = store.done === undefined;
    bar.max = store.total ?? 1;
    if (store.total === null || store.done === undefined) bar.removeAttribute("value");
    else bar.value = store.done;
  });
  const grows = stores.some((store) => store.grows);
  if (!grows && document.activeElement === el("stop")) el("map").focus(); // not nowhere
  el("stop").hidden = !grows;
}

async function stopSweep() {
  try {
    const answer = await fetch("stop", { method: "POST" });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    stopping = "asked";
    el("growth-said").textContent = "Asked to stop: a sweep ends after the tile that it is at, and " +
      "keeps every tile. The same call, or ct-adam sweep --resume, goes on.";
  } catch (error) {
    el("growth-said").textContent = `The sweep was not asked to stop (${error.message}).`;
  }
}

async function asked(name, headers = {}) {
  const answer = await fetch(name, { headers });
  if (answer.status === 304) return null;
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** One look; whether anything may still change. */
async function look() {
  const found = await asked("progress");
  showProgress(found.stores);
  if (found.tag !== report.tag) {
    const data = await asked("data", { "If-None-Match": `"${report.tag}"` });
    if (data) await load(data);
  }
  return found.stores.some((store) => store.grows);
}

async function watch() {
  let lost = false;
  growthCard();
  while (!document.documentElement.dataset.ready) await pause(100);
  for (let grows = true; grows;) { // a map that is complete stays as it is
    while (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
    }
    const begun = performance.now();
    let least = LOOK;
    try {
      grows = await look();
      if (lost) el("growth-said").textContent = "";
      lost = false;
    } catch (error) {
      lost = true;
      el("growth-said").textContent = "No new numbers: the server or its store does not answer " +
        `(${error.message}). The page keeps what it shows, and tries again.`;
      least = SLOW;
    }
    // A large map takes its time: the sweep has the cores for most of it.
    await pause(Math.max(least, 4 * (performance.now() - begun)));
  }
}

watch();

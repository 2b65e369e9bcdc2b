// The overview: what the store is, the runs compared, curves, and latents to begin with.

const FROM_RUNS = 8; // with so many, the table has a filter
const runsSort = { key: "fvu", way: 1, text: "" };

function overview() {
  document.title = "Overview · " + META.title;
  return page(
    h("h1", {}, META.title), h("p", { class: "lede" }, META.lede),
    h("dl", { class: "facts" }, META.facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    META.runs.length > 0 && [runsSection(), curvesSection(), detailsSection(), figuresNote()],
    cardsSection());
}

// All but the random dictionary that stands below them.
const trained = () => META.runs.filter((run) => !run.control);

function runsSection() {
  const table = runsTable(), filtered = trained().length >= FROM_RUNS;
  const find = filtered && h("input", { class: "field find", type: "search", placeholder: "Filter runs", "aria-label": "Filter runs", value: runsSort.text,
    autocomplete: "off", on: { input: (event) => { runsSort.text = event.target.value; table.draw(); } } });
  return section(trained().length > 1 ? "Runs compared" : "The run", plural(META.held_out, "held-out token"), find,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs compared" }, table.element),
    h("p", { class: "note below" }, META.runs_note),
    META.runs.flatMap((run) => run.notes.map((note) => h("p", { class: "warn" }, run.name + ": " + note))));
}

// The extent of a column, so that the dots of its rows can be compared.
function domainOf(key, intervals) {
  const values = META.runs.flatMap((run) => [run[key], ...((intervals && run[intervals]) || [])]).filter((v) => v !== null);
  const low = Math.min(...values), high = Math.max(...values), margin = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
  return [low - margin, high + margin];
}

function runsTable() {
  const shownName = META.runs[META.shown].name, several = trained().length > 1, body = h("tbody");
  const columns = [
    { key: "name", title: "Run", cell: (run) => h("td", { class: run.control ? "name note" : "name", title: run.name }, isShown(run) ? h("a", { href: "#/latents" }, run.name) : run.name) },
    ...META.told.map((title, k) => ({ key: k, title, style: "told", cell: (run) => h("td", { class: "told" }, run.told[k]) })),
    { key: "fvu", title: "FVU", style: "n", cell: fvuCell(domainOf("fvu", "fvu_interval")) },
    several && { key: "difference", title: "Against " + shortened(shownName, 24), style: "n difference", cell: differenceCell },
    { key: "dead", title: "Dead latents", style: "n", cell: deadCell },
    { key: "l0", title: "L0", style: "n", cell: (run) => h("td", { class: "n" }, figure(run.l0)) },
    { key: "dense", title: "Dense", style: "n", cell: (run) => h("td", { class: "n" }, whole(run.dense)) },
  ].filter(Boolean);
  const value = (run, key) => (typeof key === "number" ? run.told[key] : key === "dead" ? run.dead / run.d_sae : run[key]);
  const heads = columns.map((column) => h("th", { class: column.style, scope: "col" }, h("button", { type: "button", on: { click: () => {
    runsSort.way = runsSort.key === column.key ? -runsSort.way : 1;
    runsSort.key = column.key;
    draw();
  } } }, column.title)));
  function draw() {
    heads.forEach((head, k) => {
      if (columns[k].key === runsSort.key) head.setAttribute("aria-sort", runsSort.way > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    const words = runsSort.text.trim().toLowerCase();
    const rows = META.runs.filter((run) => [run.name, ...run.told].join(" ").toLowerCase().includes(words));
    rows.sort((a, b) => a.control - b.control || compare(value(a, runsSort.key), value(b, runsSort.key)) * runsSort.way);
    replace(body, rows.map((run) => h("tr", { class: isShown(run) ? "shown" : null }, columns.map((column) => column.cell(run)))));
    if (!rows.length) put(body, h("tr", {}, h("td", { colspan: columns.length, class: "note" }, "No run answers to that.")));
  }
  draw();
  return { element: h("table", { class: "runs" }, h("thead", {}, h("tr", {}, heads)), body), draw };
}

// Numbers by size, texts with the numbers in them by size, what is missing last.
function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

const isShown = (run) => run === META.runs[META.shown];

const fvuCell = (domain) => (run) => h("td", { class: "n" }, h("div", { class: "measure" },
  dotChart(run.fvu, run.fvu_interval, domain, isShown(run)), h("b", {}, run.fvu.toFixed(4)),
  run.fvu_interval && h("span", { class: "note" }, "± " + ((run.fvu_interval[1] - run.fvu_interval[0]) / 2).toFixed(4))));

function differenceCell(run) {
  if (isShown(run)) return h("td", { class: "n difference" }, h("span", { class: "note" }, "the run shown"));
  if (run.difference === null) return h("td", { class: "n difference" }, h("span", { class: "note" }, run.control ? "–" : "other sites"));
  const interval = run.difference_interval;
  return h("td", { class: "n difference" }, h("b", {}, signed(run.difference, 4)),
    interval && h("span", { class: "note" }, " " + signed(interval[0], 4) + " to " + signed(interval[1], 4)));
}

const deadCell = (run) => h("td", { class: "n" }, h("div", { class: "measure" },
  dotChart(run.dead / run.d_sae, null, [0, 1], isShown(run)), h("b", {}, whole(run.dead)),
  h("span", { class: "note" }, ((100 * run.dead) / run.d_sae).toFixed(1) + " %")));

// Training and density

const lineOf = (run, k, points) => ({ name: run.label, on: isShown(run), dash: k % 3, points });

function curvesSection() {
  const recorded = trained().map((run, k) => [run, k]).filter(([run]) => run.curve.length);
  const curves = recorded.map(([run, k]) => lineOf(run, k, run.curve.filter((p) => p[1] !== null).map((p) => [p[0], p[1]])));
  const dead = recorded.map(([run, k]) => lineOf(run, k, run.curve.map((p) => [p[0], p[2] / run.d_sae])));
  const note = recorded.length === trained().length ? null : recorded.length
    ? "training of " + recorded.length + " of " + trained().length + " runs recorded" : null;
  return section("Training and density", note, h("div", { class: "charts" },
    recorded.length ? [fvuChart(curves), deadChart(dead)]
      : h("p", { class: "note" }, "The training of these dictionaries is not recorded, so there are no curves: another program made them, or training.json is missing."),
    densityChart()));
}

const lastStep = (lines) => Math.max(1, ...lines.flatMap((line) => line.points.map((p) => p[0])));

function fvuChart(lines) {
  const values = lines.flatMap((line) => line.points.map((p) => p[1])), high = Math.min(1, Math.max(0.1, ...values));
  const low = Math.min(...values, high), floor = Math.max(0, Math.floor(low * 10 - 0.5) / 10);
  return chartOf("Unexplained variance", "FVU of the training batch, by step",
    () => lineChart({ x: [0, lastStep(lines)], y: [floor, Math.ceil(high * 10) / 10], lines, label: "Unexplained variance by step; the table above has the final numbers" }));
}

function deadChart(lines) {
  const high = Math.max(0.05, ...lines.flatMap((line) => line.points.map((p) => p[1])));
  return chartOf("Dead latents", "share of all, by step",
    () => lineChart({ x: [0, lastStep(lines)], y: [0, Math.ceil(high * 10) / 10], lines, yText: (v) => +(100 * v).toFixed(1) + " %", label: "Share of dead latents by step" }));
}

const POWERS = { 0: "all", "-1": "10 %", "-2": "1 %", "-3": "0.1 %", "-4": "10⁻⁴", "-5": "10⁻⁵", "-6": "10⁻⁶" };

function densityChart() {
  const rarest = Math.max(META.edges[0], Math.floor(-Math.log10(META.held_out)));
  const lines = trained().map((run, k) => lineOf(run, k, run.density.flatMap((count, bin) => [
    [META.edges[bin], count / run.d_sae], [META.edges[bin + 1], count / run.d_sae]]).filter((p) => p[0] >= rarest)));
  const high = Math.max(0.01, ...lines.flatMap((line) => line.points.map((p) => p[1])));
  const ticks = Array.from({ length: -rarest + 1 }, (_, k) => rarest + k);
  return chartOf("How often latents fire", "share of latents, by share of tokens",
    () => lineChart({ x: [rarest, 0], y: [0, high * 1.1], lines, named: false, xTicks: ticks, xText: (v) => POWERS[v], yText: (v) => +(100 * v).toFixed(1) + " %", label: "Histogram of how often latents fire" }));
}

// What only some dictionaries have: several sites, layers, prefixes, two models.

function detailsSection() {
  const charts = [siteChart(), layerChart(), prefixChart(), whoseChart()].filter(Boolean);
  return charts.length > 0 && section("By site and by part", null, h("div", { class: "charts" }, charts));
}

// The same pictures as files, for papers.
function figuresNote() {
  if (!META.figures.length) return null;
  const links = (name) => ["png", "svg", "csv"].map((kind, k) => [k ? ", " : "", h("a", { href: "figures/" + name + "." + kind }, kind.toUpperCase())]);
  return h("p", { class: "note more links" }, "Figures for papers, with their numbers: ", META.figures.map((name, k) => [k ? "; " : "", name + " ", links(name)]), ".");
}

function siteChart() {
  const names = [...new Set(trained().flatMap((run) => run.sites.map((site) => site[0])))];
  if (!names.length) return null;
  const series = trained().filter((run) => run.sites.length).map((run) => ({ name: run.label, on: isShown(run),
    values: names.map((name) => { const found = run.sites.find((site) => site[0] === name); return found ? found[1] : null; }) }));
  const most = Math.max(0.1, ...series.flatMap((one) => one.values.filter((v) => v !== null && v <= 1.5))) * 1.05;
  return chartOf("FVU by site", "held out; filled: the run shown", () => dotRows({ rows: names, series, most, label: "FVU by site" }));
}

function layerChart() {
  const layers = [...new Set(trained().map((run) => run.layer))].filter((layer) => layer !== null).sort((a, b) => a - b);
  if (layers.length < 2) return null;
  const of = (key) => trained().map((run) => ({ name: run.name, on: isShown(run), values: layers.map((layer) => (layer === run.layer ? run[key] : null)) }));
  const most = Math.max(0.1, ...trained().map((run) => Math.min(1.5, run.fvu))) * 1.05;
  return chartOf("FVU by layer", "held out; one dot a run", () => dotRows({ rows: layers.map((layer) => "layer " + layer), series: of("fvu"), most, label: "FVU by layer" }));
}

function prefixChart() {
  const runs = trained().map((run, k) => [run, k]).filter(([run]) => run.prefixes.length);
  if (!runs.length) return null;
  const lines = runs.map(([run, k]) => lineOf(run, k, run.prefixes));
  const high = Math.min(1, Math.max(0.1, ...lines.flatMap((line) => line.points.map((p) => p[1]))) * 1.05);
  return chartOf("FVU by prefix", "by share of the latents, held out",
    () => lineChart({ x: [0, 1], y: [0, high], lines, xText: (v) => figureTick(v), label: "FVU by prefix" }));
}

function whoseChart() {
  const run = META.runs[META.shown];
  if (!run.norms.length) return null;
  const names = run.norms.map((_, k) => (k / 10).toFixed(1) + " to " + ((k + 1) / 10).toFixed(1));
  return chartOf("Whose the latents are", "by share of the decoder’s norm in " + META.latents.whose[0],
    () => barChart({ counts: run.norms, names, ticks: [[0, "only " + META.latents.whose[1]], [1, "only " + META.latents.whose[0]]], label: "Latents by relative decoder norm" }));
}

// Latents to begin with

function cardsSection() {
  if (!META.latents) return empty("No dictionary.", "This store has been harvested and not trained on: train one with ", h("code", {}, "rkstore train"), ", and write the report again.");
  const cards = h("div", { class: "cards" });
  for (const id of META.cards) {
    const lines = h("div", { class: "lines" }, skeletons(3));
    put(cards, h("a", { class: "card", href: "#/latent/" + id }, h("div", { class: "line" },
      h("b", {}, id), h("span", { class: "what" }, called(id)), h("span", { class: "note" }, percent(INDEX.fired[id] / INDEX.rows))), lines));
    latentOf(id).then((latent) => {
      const first = latent.groups[0][1].slice(0, 3);
      return textOf(first.flatMap(rowsOfSample)).then(() => replace(lines, first.map((sample) => kwic(sample, INDEX.largest[id], false))));
    }).catch((error) => replace(lines, h("span", { class: "note" }, missing(error))));
  }
  return section(META.cards_title, h("a", { href: "#/latents" }, "all " + whole(INDEX.count) + " latents"), cards, h("p", { class: "note more" }, META.cards_note));
}

function missing(error) {
  if (!(error instanceof Missing)) throw error;
  return "The report needs " + error.message + ": copy the whole folder, or write the report again.";
}

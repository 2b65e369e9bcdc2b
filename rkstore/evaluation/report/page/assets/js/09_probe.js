// The probe: scores of random subsets against chance, and what the directions of the best are.

function probePage() {
  document.title = "Probe · " + META.title;
  if (!META.probe) return page(h("h1", {}, "Probe"), empty("No probe.", "Write the report with ", h("code", {}, "--probe"), " and a directory that ", h("code", {}, "rkstore probe"), " wrote."));
  const body = h("div", {}, skeletons(8));
  load("data/probe.js").then(() => PROBE).then((probe) => textOf(probe.directions.flatMap((one) => one.samples.flatMap(rowsOfSample))).then(() =>
    replace(body, probeScores(probe), probeDirections(probe)))).catch((error) => replace(body, empty("A file of this report is missing.", missing(error))));
  return page(h("h1", {}, "What the probe found"), h("p", { class: "lede" }, META.probe.lede),
    h("dl", { class: "facts" }, META.probe.facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))), body);
}

function probeScores(probe) {
  const { edges, drawn, chance, lowest_kept } = probe.scores;
  const share = (counts) => { const all = Math.max(1, counts.reduce((a, b) => a + b, 0)); return counts.flatMap((c, k) => [[edges[k], c / all], [edges[k + 1], c / all]]); };
  const lines = [{ name: "subsets", on: true, dash: 0, points: share(drawn) }].concat(chance ? [{ name: "chance", on: false, dash: 1, points: share(chance) }] : []);
  const high = Math.max(0.01, ...lines.flatMap((line) => line.points.map((p) => p[1])));
  const chart = lineChart({ x: [edges[0], edges[edges.length - 1]], y: [0, high * 1.1], lines, xText: figureTick, yText: (v) => +(100 * v).toFixed(1) + " %", label: "Scores of the subsets, and of chance" });
  return section("Scores against chance", null, h("div", { class: "charts" }, chartOf("How subsets score", META.probe.score + "; share of the subsets", chart),
    h("div", {}, h("p", { class: "note" }, META.probe.chance), h("p", { class: "note below" }, "Kept: the best, from a score of " + figure(lowest_kept) + " on."))));
}

function probeDirections(probe) {
  const rows = h("div", { class: "cards" });
  probe.directions.forEach((one, k) => {
    const title = one.tokens.length ? one.tokens.map((id, j) => [j ? "  " : "", briefly(id)]) : "no token in particular";
    put(rows, h("article", { class: "card" }, h("div", { class: "line" }, h("b", {}, k + 1), h("h3", { class: "what" }, title), h("span", { class: "note" }, "score " + figure(one.score))),
      h("div", { class: "lines" }, one.samples.map((sample) => kwic(sample, one.largest, false)),
        h("p", { class: "note" }, "dimensions " + one.dimensions.map(([at, weight]) => at + " " + signed(weight / 1000, 2)).join(", ") + " · " + figure(one.mean, 2) + " σ on those tokens, greatest " + figure(one.largest, 3) + " σ"))));
  });
  return section("Directions, best first", probe.directions.length + " of " + whole(META.probe.found), rows, h("p", { class: "note more" }, META.probe.note));
}

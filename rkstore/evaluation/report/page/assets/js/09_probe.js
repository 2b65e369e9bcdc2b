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
  const scores = probe.scores, rows = [{ name: "subsets", counts: scores.drawn, range: scores.drawn_range }];
  if (scores.chance) rows.push({ name: "of chance", counts: scores.chance, range: scores.chance_range });
  const drawing = () => histogramRows({ edges: scores.edges, from: scores.lowest_kept, rows, label: "Histograms of the scores of the subsets, and of chance" });
  return section("Scores against chance", null, h("div", { class: "charts" },
    Object.assign(chartOf("How subsets score", META.probe.score + "; each row is as high as its own tallest bin", drawing), { className: "broad" }),
    h("div", {}, [META.probe.chance, ...scores.said].map((text) => h("p", { class: "note below" }, text)))));
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

// A latent: what it reads and writes, samples from every band of its activation, and its neighbours.

let logitScale = "token";

function latentPage(id, opened) {
  document.title = id + (isNamed(id) ? " " + NAMES[id] : "") + " · " + META.title;
  if (!LIST) select();
  const middle = h("div", { class: "middle" }), side = h("aside", { class: "side", "aria-label": "Numbers of this latent" });
  const steps = h("span", { class: "steps" }), list = rail(id), fired = INDEX.fired[id];
  const strip = h("dl", { class: "strip" }), body = h("div", {}, skeletons(8));
  put(middle, [h("div", { class: "over" }, h("a", { href: "#/latents" }, META.latents.dictionary), h("span", {}, "·"), h("span", {}, META.latents.site), steps),
    h("div", { class: "title" }, h("span", { class: "id" }, id), h("h1", {}, fired || isNamed(id) ? called(id) : "Never fires")),
    h("p", { class: "note" }, isNamed(id) ? "Named by hand." : fired ? "Not named: these are the tokens that tell it from the rest." : ""),
    fired ? strip : null, body]);
  const loaded = latentOf(id).then((latent) => textOf(latent.groups.flatMap((group) => group[1].flatMap(rowsOfSample))).then(() => {
    if (fired) fillStrip(strip, id, latent);
    replace(body, flowOf(id, latent), fired ? samplesOf(id, latent) : deadLatent());
    replace(side, fired ? numbersOf(id, latent) : null, nearest(latent));
    if (opened !== undefined) openSample(body, +opened);
  })).catch((error) => replace(body, empty("A file of this report is missing.", missing(error))));
  const answered = () => { list.draw(); replace(steps, stepsFrom(id)); };
  answered();
  return Object.assign(h("div", { class: "latent" }, list.element, middle, side), { whole: loaded, answered,
    move(way) { const to = beside(id, way); if (to !== undefined) go("#/latent/" + to); } });
}

function openSample(body, number) {
  const line = body.querySelectorAll("button.kw")[number], more = $(".unfold", body);
  if (!line) return;
  if (more && line.closest("li").hidden) more.click();
  line.click();
}

function stepsFrom(id) {
  const step = (to, rel, text, title) => to !== undefined && h("a", { class: "quiet", href: "#/latent/" + to, rel, title }, text);
  const before = beside(id, -1), after = beside(id, 1);
  return [step(before, "prev", "← " + before, "Previous (k)"), step(after, "next", after + " →", "Next (j)")];
}

function rail(id) {
  const list = h("ol"), note = h("p", { class: "note" });
  const draw = () => {
    const first = Math.max(0, LIST.indexOf(id) - 12);
    replace(list, LIST.slice(first, first + 60).map((other) => h("li", {}, h("a", { href: "#/latent/" + other, "aria-current": other === id ? "true" : null },
      h("b", {}, other), h("span", {}, called(other)), h("small", {}, INDEX.fired[other] ? percent(densityOf(other), true) : "")))));
    note.textContent = plural(LIST.length, "latent") + (QUERY.text ? " for “" + QUERY.text + "”" : "");
  };
  return { element: h("nav", { class: "rail", "aria-label": "Latents" }, h("div", { class: "search" }, searchField("Token, name, number")), note, list), draw };
}

function fillStrip(strip, id, latent) {
  const fired = INDEX.fired[id], p = densityOf(id);
  const shown = [["Density", percent(p), p < 0.5 ? " 1 in " + whole(1 / p) : ""], ["Fires on", whole(fired), " of " + whole(INDEX.rows)],
    ["Greatest", figure(INDEX.largest[id]), ""], ["Mean when on", figure(latent.mean), " ± " + figure(latent.deviation, 2)],
    ["Different tokens", whole(latent.distinct), ""], ["Blocks", whole(latent.blocks), " of " + whole(META.latents.blocks)]];
  if (latent.next !== undefined && latent.next !== null) shown.push(["Next token", signed(latent.next, 2) + " σ", ""]);
  put(strip, shown.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, more)))));
}

// What it reads and writes

function flowOf(id, latent) {
  const wires = META.latents.wires[latent.bank], reads = wires.reads, writes = wires.writes;
  const sites = (names) => (names.length === 1 ? h("code", {}, names[0]) : names.length + " sites");
  const same = reads.join() === writes.join();
  const flow = h("p", { class: "flow" }, "Reads ", sites(reads), h("span", { class: "arrow" }, "→"), h("b", {}, id), h("span", { class: "arrow" }, "→"), " writes ", same ? (reads.length === 1 ? "the same site" : "the same sites") : sites(writes), ".",
    latent.cosine === undefined ? null : [" Cosine of encoder and decoder ", h("b", {}, figure(latent.cosine / 1000, 2)), "."],
    latent.units.length ? [" Dimensions it writes most: ", latent.units.map(([unit, weight], k) => [k ? ", " : "", h("b", {}, unit), " " + signed(weight / 1000, 2)]), "."] : null);
  return [flow, cellsOf("reads", reads, latent.reads), cellsOf("writes", writes, latent.writes), INDEX.whose && whoseLine(id)];
}

// A strip of cells, one a site, in ink by the norm there as a share of the largest.
function cellsOf(title, names, norms) {
  if (names.length < 2) return null;
  return h("div", { class: "cells" }, h("span", {}, title), h("ol", { "aria-label": title + ", norm by site, per cent of the largest" }, names.map((name, k) =>
    h("li", { class: norms[k] ? null : "none", title: name + ": " + norms[k] + " % of the largest", vars: { "--a": norms[k] } }, brief(name), h("span", { class: "sr" }, ": " + norms[k] + " %")))));
}

function brief(name) {
  const layer = /(?:^|:)blocks\.(\d+)\./.exec(name), model = /^([^:]+):/.exec(name);
  return (model ? model[1] + " " : "") + (layer ? layer[1] : shortened(name, 8));
}

const CLASSES = { first: (names) => "only " + names[0], second: (names) => "only " + names[1], shared: () => "shared", between: () => "more of one than of the other", neither: () => "writes to neither" };

function whoseLine(id) {
  const names = META.latents.whose, share = INDEX.whose[id] / 250;
  return h("div", { class: "whose" }, h("span", {}, names[1]), h("span", { class: "track" }, INDEX.whose[id] === 255 ? null : h("i", { vars: { "--a": 100 * share } })),
    h("span", {}, names[0] + "  ", h("b", {}, whoseText(id)), " " + CLASSES[whoseIs(id)](names)));
}

const deadLatent = () => empty("Dead: it fired on none of " + whole(INDEX.rows) + " tokens.", "A rarer text may still wake it. Its nearest latents by decoder stand beside.");

// Samples

const FEW = 8; // firings below which bands would say nothing

function samplesOf(id, latent) {
  const largest = INDEX.largest[id], fired = INDEX.fired[id], out = [];
  if (fired < FEW) out.push(h("p", { class: "warn" }, "It fires on " + plural(fired, "token") + " only: too few for bands of activation, and for trust in a pattern."));
  for (const [band, samples, tokens] of latent.groups) {
    if (!samples.length) continue;
    const step = 1 / META.bands, from = 1 - band * step, range = figure(from * largest, 2) + " to " + figure((from + step) * largest, 2);
    out.push(h("div", { class: "band" }, band ? h("span", { class: "swatch", "aria-hidden": "true", vars: { "--from": 100 * from, "--to": 100 * (from + step) } }) : null,
      h("h2", {}, band ? range : META.latents.strongest),
      h("span", { class: "note" }, band ? (tokens === null ? "" : plural(tokens, "token") + ", " + wholePercent(tokens / fired) + " of its firing; ") + samples.length + " drawn" : "the token drawn is underlined; a line opens its block")));
    const lines = samples.map((sample) => sampleLine(sample, largest)), folded = band ? [] : lines.slice(FOLDED);
    folded.forEach((line) => { line.hidden = true; });
    out.push(h("ol", { class: "kwic" }, lines));
    if (folded.length) out.push(unfold(folded));
  }
  return out;
}

const wholePercent = (share) => (share && share < 0.005 ? "less than 1 %" : Math.round(100 * share) + " %");

const FOLDED = 8; // of the strongest, the others are folded: the bands say more

function sampleLine(sample, largest) {
  const { row, acts } = readSample(sample);
  return h("li", {}, h("span", { class: "value" }, figure((largest * (acts[row] || 0)) / 255)), kwic(sample, largest, true),
    h("span", { class: "at" }, "block " + whole(blockOf(row)) + " : " + inBlock(row)));
}

function unfold(folded) {
  const button = h("button", { class: "quiet unfold", type: "button", on: { click: () => {
    folded.forEach((line) => { line.hidden = false; });
    button.remove();
  } } }, folded.length + " more");
  return button;
}

// Numbers beside them

function numbersOf(id, latent) {
  const box = (title, note, ...rest) => h("section", {}, h("h2", {}, title, h("span", { class: "note" }, note)), rest);
  return [box("Activations", "tokens, log scale", histogram(latent.histogram, INDEX.largest[id], INDEX.fired[id])),
    box("Fires on", "share of its activation", h("ul", { class: "rows shares" }, latent.tokens.map(([token, count, share]) => h("li", {}, chip(token),
      h("span", { class: "share" }, h("i", { vars: { "--a": share / 10 } })), h("span", { class: "value" }, h("span", { class: "note" }, whole(count) + "×  "), (share / 10).toFixed(1) + " %"))))),
    logitsOf(latent, box),
    box("Fires together with", "φ over tokens", latent.together.length ? h("ol", { class: "rows" }, latent.together.map(neighbour))
      : h("p", { class: "note" }, "With no other latent on three tokens or more."))];
}

function logitsOf(latent, box) {
  if (!latent.logits) return box("Writes toward", "", h("p", { class: "note" }, META.latents.no_logits));
  const up = h("ol", { class: "rows" }), down = h("ol", { class: "rows" }), note = h("p", { class: "note" });
  const choices = [["token", "per token"], ["raw", "raw"]].map(([key, title]) => h("button", { type: "button", "data-key": key, on: { click: () => { logitScale = key; draw(); } } }, title));
  function draw() {
    const [raised, lowered] = latent.logits[logitScale], rows = ([tokens, values]) => tokens.map((token, i) => h("li", {}, chip(token), h("span", { class: "value" }, signed(values[i] / 10, 1))));
    replace(up, rows(raised));
    replace(down, rows(lowered));
    choices.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.key === logitScale)));
    note.textContent = (logitScale === "token" ? "σ among all latents, token by token. " : "σ among all tokens; rare tokens lead for most latents. ") + META.latents.logits_path;
  }
  draw();
  const score = signed(latent.next, 2) + " σ on average", weak = Math.abs(latent.next) < 0.7;
  return box("Writes toward", h("span", { class: "choice", role: "group", "aria-label": "Scale of logits" }, choices),
    h("div", { class: "two" }, h("div", {}, h("h3", {}, "raises"), up), h("div", {}, h("h3", {}, "lowers"), down)), note,
    h("p", { class: weak ? "warn" : "note" }, weak ? META.latents.logits_warning + " (" + score + "). Read them with care." : "The tokens that do follow stand at " + score + "."));
}

function nearest(latent) {
  return h("section", {}, h("h2", {}, "Nearest by decoder", h("span", { class: "note" }, "cosine")),
    latent.near.length ? h("ol", { class: "rows" }, latent.near.map(neighbour)) : h("p", { class: "note" }, "There is no other latent of this kind."));
}

const neighbour = ([id, value, mutual]) => h("li", {}, h("a", { href: "#/latent/" + id, title: mutual ? null : "One way: this latent is not among those of that one" },
  h("b", {}, id), h("span", {}, called(id))), h("span", { class: "value" }, mutual ? "" : h("span", { class: "note" }, h("span", { "aria-hidden": "true" }, "→  "), h("span", { class: "sr" }, "one way, ")), figure(value / 1000, 2)));

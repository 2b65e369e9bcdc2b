// The list of latents: search, density, filters, and rows that exist only near the view.

const QUERY = { text: "", low: null, high: 0, norm: null, filters: {}, sort: "id", way: 1 };
let LIST = null, cursor = 0;

// The last phrase that was looked for in the text, and the search for one that is under way.
let FOUND = null, SOUGHT = null;

const rarestPower = () => Math.max(-6, Math.floor(-Math.log10(Math.max(10, INDEX.rows))));
const densityOf = (id) => INDEX.fired[id] / INDEX.rows;

const FILTERS = () => [
  ["named", "Named", (id) => isNamed(id), anyNamed()],
  ["one", "One token", (id) => INDEX.fired[id] > 0 && INDEX.share[id] >= 204, true],
  ["next", "Predicts what follows", (id) => INDEX.next[id] >= 20, INDEX.next !== null],
  ["dense", "Dense", (id) => densityOf(id) > 0.1, true],
  ["dead", "Dead", (id) => INDEX.fired[id] === 0, true],
  ["first", META.latents.whose && "Only " + META.latents.whose[0], (id) => whoseIs(id) === "first", INDEX.whose !== null],
  ["shared", "Shared", (id) => whoseIs(id) === "shared", INDEX.whose !== null],
  ["second", META.latents.whose && "Only " + META.latents.whose[1], (id) => whoseIs(id) === "second", INDEX.whose !== null],
].filter((one) => one[3]);

// The share of a crosscoder's decoder norm at the first of two sites, in 1/250; 255: it writes neither.
function whoseIs(id) {
  const share = INDEX.whose[id];
  return share === 255 ? "neither" : share >= 225 ? "first" : share <= 25 ? "second" : share >= 100 && share <= 150 ? "shared" : "between";
}

const SORTS = {
  id: (id) => id, fired: (id) => INDEX.fired[id], largest: (id) => INDEX.largest[id],
  share: (id) => INDEX.share[id], next: (id) => INDEX.next[id], whose: (id) => INDEX.whose[id],
};

// What a text looks for: tokens and names at once, phrases of the samples' text when it asks for them.
const phraseOf = (text) => (/^["“].+["”]$/.test(text) ? text.slice(1, -1) : /\S\s+\S/.test(text) ? text : null);

function select() {
  const text = QUERY.text.trim(), number = /^#?(\d+)$/.exec(text), words = text.toLowerCase(), phrase = phraseOf(text);
  const tokens = new Set(), filters = FILTERS().filter(([key]) => QUERY.filters[key]).map((one) => one[2]);
  if (text && !number && !phrase)
    VOCAB.forEach((piece, id) => {
      if (typeof piece !== "string") return;
      const low = piece.toLowerCase();
      if (low.trim() === words || (words.length > 2 && low.includes(words))) tokens.add(id);
    });
  const inSamples = phrase && FOUND && FOUND.phrase === phrase ? FOUND.latents : null;
  const found = [];
  for (let id = 0; id < INDEX.count; id++) {
    const named = isNamed(id) && NAMES[id].toLowerCase().includes(phrase ? phrase.toLowerCase() : words);
    if (number && !named && !String(id).startsWith(number[1])) continue;
    if (phrase && !named && !(inSamples && inSamples.has(id))) continue;
    if (text && !number && !phrase && !named && !tellingIds(id).some((token) => tokens.has(token))) continue;
    if (!INDEX.fired[id] && !QUERY.filters.dead && !number && !named) continue;
    const power = INDEX.fired[id] ? Math.log10(densityOf(id)) : -Infinity;
    if ((QUERY.low !== null && power < QUERY.low) || power > QUERY.high) continue;
    if (QUERY.norm && !(normOf(id) >= QUERY.norm[0] && normOf(id) <= QUERY.norm[1])) continue;
    if (filters.every((passes) => passes(id))) found.push(id);
  }
  LIST = found.sort(inOrder);
  cursor = Math.max(0, Math.min(cursor, LIST.length - 1));
}

const inOrder = (a, b) => (SORTS[QUERY.sort](a) - SORTS[QUERY.sort](b)) * QUERY.way || a - b;

// The latent before (-1) or after (1) one in the list, or where that one would stand in it.
function beside(id, way) {
  const at = LIST.indexOf(id), behind = LIST.findIndex((other) => inOrder(id, other) < 0);
  const after = at >= 0 ? at + 1 : behind < 0 ? LIST.length : behind;
  return LIST[way > 0 ? after : (at >= 0 ? at : after) - 1];
}

function clearQuery() {
  Object.assign(QUERY, { text: "", low: null, high: 0, norm: null, filters: {}, sort: "id", way: 1 });
  cursor = 0;
  show();
  $("#q").focus();
}

// The latents that have a sample drawn inside a phrase of the stored text.
function findPhrase(phrase) {
  const parts = Math.ceil(META.text_rows / META.text_part);
  const all = Array.from({ length: parts }, (_, k) => k * META.text_part);
  return Promise.all([textOf(all), load("data/where.js")]).then(() => WHERE).then((pairs) => {
    const rows = rowsOfPhrase(phrase.toLowerCase()), latents = new Set();
    const n = pairs.length / 2;
    for (let k = 0, row = 0; k < n; k++) { row += pairs[k]; if (rows.has(row)) latents.add(pairs[n + k]); }
    return { phrase, latents };
  }).catch((error) => ({ phrase, latents: new Set(), lack: missing(error) }));
}

let BLOCKS = null;

// The text of every block in small letters, with where each of its tokens starts; made once.
function blocksOfText() {
  const blocks = [];
  for (let first = 0, block; first < META.text_rows; first += block.length) {
    const starts = [];
    let text = "";
    block = rowsOfBlock(first);
    for (const row of block) {
      const piece = pieceOf(tokenAt(row));
      starts.push(text.length);
      text += Array.isArray(piece) || isSpecial(tokenAt(row)) ? "\ufffd" : piece.toLowerCase();
    }
    blocks.push({ first, text, starts });
  }
  return blocks;
}

function rowsOfPhrase(phrase) {
  const found = new Set();
  BLOCKS = BLOCKS || blocksOfText();
  for (const { first, text, starts } of BLOCKS)
    for (let at = text.indexOf(phrase); at >= 0; at = text.indexOf(phrase, at + 1))
      for (let k = starts.length - 1; k >= 0; k--) {
        const stop = k + 1 < starts.length ? starts[k + 1] : text.length;
        if (stop <= at) break;
        if (starts[k] < at + phrase.length) found.add(first + k);
      }
  return found;
}

// Looks for a text. A phrase may have to be loaded first: whatever page is shown then draws the answer.
function searchFor(text) {
  QUERY.text = text;
  const phrase = phraseOf(text.trim());
  SOUGHT = phrase && !(FOUND && FOUND.phrase === phrase && !FOUND.lack) ? findPhrase(phrase) : null;
  if (!SOUGHT) { answer(); return; }
  const sought = SOUGHT;
  sought.then((found) => {
    if (SOUGHT !== sought) return;
    [FOUND, SOUGHT] = [found, null];
    answer();
  });
}

function answer() {
  cursor = 0;
  select();
  if (shownPage.answered) shownPage.answered();
}

// Does something once what is searched for is found: at once, but for a phrase that is being loaded.
function whenAnswered(does) {
  if (SOUGHT) SOUGHT.then(does);
  else does();
}

const searchField = (hint) => h("input", { class: "field", id: "q", type: "search", value: QUERY.text, placeholder: hint, "aria-label": "Search latents",
  autocomplete: "off", spellcheck: "false", on: { input: (event) => searchFor(event.target.value) } });

function listPage() {
  document.title = "Latents · " + META.title;
  if (!META.latents) return page(h("h1", {}, "Latents"), cardsSection());
  const rows = virtualRows(), count = h("span", { class: "count" });
  const ranges = [densityRange(answer), normRange(answer)].filter(Boolean);
  const made = page(h("h1", {}, "Latents"), h("p", { class: "lede" }, META.latents.lede),
    h("div", { class: "controls" }, h("div", {}, h("label", { for: "q" }, "Search"), searchField("Token, name, number, or words of the text")), ranges.map((range) => range.element)),
    h("div", { class: "chips", role: "group", "aria-label": "Filters" }, FILTERS().map(filterChip(answer)), count),
    columnHeads(answer), rows.element);
  function draw() {
    count.textContent = whole(LIST.length) + " of " + whole(INDEX.count);
    ranges.forEach((range) => range.draw());
    rows.draw();
  }
  made.style.setProperty("--columns", columnWidths());
  return Object.assign(made, { top: rows.top, paint: rows.paint, resized: rows.resized,
    ready() { select(); draw(); },
    answered() { draw(); $("#live").textContent = plural(LIST.length, "latent"); },
    move(step) {
      cursor = Math.max(0, Math.min(LIST.length - 1, cursor + step));
      rows.follow();
      if (LIST.length) $("#live").textContent = "Latent " + LIST[cursor];
    },
    open() { if (LIST.length) go("#/latent/" + LIST[cursor]); } });
}

// Rows of the list, of which only those near the view exist. One that stays near stays the same
// element, so that it keeps the focus.
function virtualRows() {
  const element = h("ol", { class: "virtual" }), near = new Map();
  let height = 0;
  const above = () => -element.getBoundingClientRect().top;
  const made = (k) => h("li", { vars: { "--y": k * height + "px" }, "aria-setsize": LIST.length, "aria-posinset": k + 1 }, listRow(LIST[k]));
  function paint() {
    const first = Math.max(0, Math.floor(above() / height) - 8), last = Math.min(LIST.length, first + Math.ceil(innerHeight / height) + 20);
    for (const [k, row] of near) if (k < first || k >= last) { row.remove(); near.delete(k); }
    for (let k = first; k < last; k++) {
      if (!near.has(k)) {
        near.set(k, made(k));
        element.insertBefore(near.get(k), element.children[k - first] || null);
      }
      near.get(k).firstChild.classList.toggle("cursor", k === cursor);
    }
  }
  function draw() {
    height = narrow() ? 56 : 34;
    near.clear();
    element.style.setProperty("height", LIST.length ? LIST.length * height + "px" : "auto");
    replace(element, LIST.length ? null : h("li", { class: "still" }, noneFound()));
    paint();
  }
  // How far to scroll so that the cursor is seen.
  function top() {
    const y = scrollY - above() + cursor * height;
    return y < innerHeight - 80 ? 0 : y - innerHeight / 2;
  }
  function follow() {
    const y = cursor * height - above();
    if (y < 100 || y > innerHeight - 80) scrollBy(0, y - innerHeight / 2);
    paint();
  }
  function resized() {
    const at = above() / height;
    draw();
    if (at > 0) scrollBy(0, at * height - above());
    paint();
  }
  return { element, paint, draw, top, follow, resized };
}

const noneFound = () => FOUND && FOUND.lack && FOUND.phrase === phraseOf(QUERY.text.trim()) ? empty("A file of this report is missing.", FOUND.lack)
  : empty("No latent answers to that.", "Search looks at the tokens that tell each latent from the rest, at names and, for several words or words in quotes, at the text of the samples. ",
    h("button", { class: "quiet", type: "button", on: { click: clearQuery } }, "Clear search and filters"));

const filterChip = (onChange) => ([key, title]) => h("button", { type: "button", "aria-pressed": String(!!QUERY.filters[key]), on: { click: (event) => {
  QUERY.filters[key] = !QUERY.filters[key];
  event.target.setAttribute("aria-pressed", String(QUERY.filters[key]));
  onChange();
} } }, title);

function columnHeads(onChange) {
  const last = INDEX.next ? ["next", "Next token", "n"] : INDEX.whose ? ["whose", shortened(META.latents.whose[0], 12), "n"] : null;
  const columns = [["id", "Latent", "n"], ["share", "Tells it from the rest"], anyNamed() && [null, "Name"], ["fired", "Density", "n"], ["largest", "Greatest", "n"], last].filter(Boolean);
  const head = h("div", { class: "columns" });
  put(head, columns.map(([key, title, style]) => key === null ? h("span", {}, title) : h("button", { type: "button", class: style, "data-way": QUERY.sort === key ? QUERY.way : null, on: { click: (event) => {
    QUERY.way = QUERY.sort === key ? -QUERY.way : key === "id" ? 1 : -1;
    QUERY.sort = key;
    head.querySelectorAll("button").forEach((button) => button.removeAttribute("data-way"));
    event.target.setAttribute("data-way", QUERY.way);
    onChange();
  } } }, title)));
  return head;
}

function listRow(id) {
  const fired = INDEX.fired[id], p = densityOf(id), lowest = rarestPower();
  const place = fired ? Math.max(0, 100 * (1 - Math.log10(p) / lowest)) : 0;
  const last = INDEX.next ? (fired ? signed(INDEX.next[id] / 20, 1) + " σ" : "–") : INDEX.whose ? whoseText(id) : null;
  return h("a", { class: "row", href: "#/latent/" + id },
    h("span", { class: "id" }, id), fired ? tellingChips(id, 5) : h("span", { class: "telling note" }, "never fires"),
    anyNamed() && h("span", { class: "given" }, isNamed(id) ? glyphs(NAMES[id]) : ""),
    h("span", { class: "density" }, h("span", {}, fired ? percent(p) : "dead"), h("span", { class: "track" }, fired ? h("i", { vars: { "--a": place } }) : null)),
    h("span", { class: "n greatest" }, fired ? figure(INDEX.largest[id]) : "–"), last === null ? null : h("span", { class: "n next" }, last));
}

const whoseText = (id) => (INDEX.whose[id] === 255 ? "–" : (INDEX.whose[id] / 250).toFixed(2));

const anyNamed = () => Object.keys(NAMES).length > 0;
const columnWidths = () => "64px minmax(0, 1.3fr) " + (anyNamed() ? "minmax(0, 1fr) " : "") + "150px 72px" + (INDEX.next || INDEX.whose ? " 92px" : "");

// Two handles over a histogram: bins of some width between two ends.
function twoHandles(spec) {
  const counts = new Array(spec.bins).fill(0), step = (spec.ends[1] - spec.ends[0]) / spec.bins;
  for (let id = 0; id < INDEX.count; id++) {
    const v = spec.value(id);
    if (v !== null) counts[Math.max(0, Math.min(spec.bins - 1, Math.floor((v - spec.ends[0]) / step)))]++;
  }
  const most = Math.max(1, ...counts), svg = s("svg", { viewBox: "0 0 " + spec.bins * 10 + " 32", preserveAspectRatio: "none", "aria-hidden": "true" });
  const bars = counts.map((count, k) => s("rect", { class: "block", x: k * 10 + 0.5, width: 9, y: 32 - (30 * count) / most, height: (30 * count) / most }));
  put(svg, bars);
  const handle = (value, label) => h("input", { type: "range", min: spec.ends[0], max: spec.ends[1], step, value, "aria-label": label });
  const low = handle(spec.low(), "Least " + spec.name), high = handle(spec.high(), "Greatest " + spec.name), said = h("span");
  low.addEventListener("input", () => { low.value = Math.min(+low.value, +high.value - step); spec.set(+low.value, +high.value); });
  high.addEventListener("input", () => { high.value = Math.max(+high.value, +low.value + step); spec.set(+low.value, +high.value); });
  const draw = () => {
    said.textContent = " · " + spec.say();
    for (const [input, value] of [[low, spec.low()], [high, spec.high()]]) { input.value = value; input.setAttribute("aria-valuetext", spec.text(value)); }
    bars.forEach((bar, k) => bar.setAttribute("class", "block" + (spec.ends[0] + k * step < spec.low() - 1e-9 || spec.ends[0] + (k + 1) * step > spec.high() + 1e-9 ? " off" : "")));
  };
  return { element: h("div", {}, h("span", { class: "label" }, spec.title, said), h("div", { class: "range" }, svg, low, high)), draw };
}

function densityRange(onChange) {
  const ends = [rarestPower(), 0], text = (v) => (v <= ends[0] ? "any" : v >= 0 ? "all tokens" : percent(Math.pow(10, v)));
  const low = () => (QUERY.low === null ? ends[0] : QUERY.low);
  return twoHandles({ bins: -ends[0] * 4, ends, name: "density", title: "Density", value: (id) => (INDEX.fired[id] ? Math.log10(densityOf(id)) : null),
    low, high: () => QUERY.high, text, say: () => (QUERY.low === null && QUERY.high >= 0 ? "any" : text(low()) + " to " + text(QUERY.high)),
    set(a, b) { QUERY.low = a <= ends[0] ? null : a; QUERY.high = b; onChange(); } });
}

// Of a crosscoder the share of its norm at the first site, of others the decoder's norm if it varies.
const normOf = (id) => (INDEX.whose ? (INDEX.whose[id] === 255 ? null : INDEX.whose[id] / 250) : INDEX.norm[id]);

function normRange(onChange) {
  if (!INDEX.whose && !INDEX.norm) return null;
  let ends = [0, 1];
  if (!INDEX.whose) for (let id = 0; id < INDEX.count; id++) ends = [0, Math.max(ends[1], INDEX.norm[id])];
  const title = INDEX.whose ? "Share of the norm in " + META.latents.whose[0] : "Decoder norm", text = (v) => figure(v, 2);
  return twoHandles({ bins: 20, ends, name: INDEX.whose ? "share" : "norm", title, value: normOf,
    low: () => (QUERY.norm ? QUERY.norm[0] : ends[0]), high: () => (QUERY.norm ? QUERY.norm[1] : ends[1]), text,
    say: () => (QUERY.norm ? text(QUERY.norm[0]) + " to " + text(QUERY.norm[1]) : "any"),
    set(a, b) { QUERY.norm = a <= ends[0] && b >= ends[1] ? null : [a, b]; onChange(); } });
}

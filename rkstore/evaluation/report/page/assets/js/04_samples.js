// Samples as a concordance: one a line, the token drawn in one column under the others.

const NEAR = 12; // tokens before the drawn one that a phone still shows

// A sample is [row, tokens before, tokens in all, [offset, activation, …]].
function readSample(sample) {
  const [row, before, count, fired] = sample, first = row - before, acts = {};
  for (let i = 0; i < fired.length; i += 2) acts[first + fired[i]] = fired[i + 1];
  const rows = Array.from({ length: count }, (_, k) => first + k);
  return { row, rows, acts };
}

const rowsOfSample = (sample) => [sample[0] - sample[1], sample[0] - sample[1] + sample[2] - 1];

function kwic(sample, largest, opens) {
  const read = readSample(sample), { row, rows, acts } = read;
  const show = (some) => running(some, acts, largest, row);
  const left = h("span", { class: "left" }, h("span", {},
    h("span", { class: "far" }, show(rows.filter((r) => r < row - NEAR))),
    show(rows.filter((r) => r < row && r >= row - NEAR))));
  const right = h("span", { class: "right" }, h("span", {}, show(rows.filter((r) => r >= row))));
  if (!opens) return h("span", { class: "kw" }, left, right);
  const line = h("button", { class: "kw", type: "button", "aria-expanded": "false" }, left, right);
  line.addEventListener("click", () => toggle(line, read, largest));
  return line;
}

function toggle(line, sample, largest) {
  const item = line.closest("li"), open = $(".whole", item);
  line.setAttribute("aria-expanded", String(!open));
  if (open) { open.remove(); return; }
  const block = rowsOfBlock(sample.row);
  textOf(block).then(() => {
    if (line.getAttribute("aria-expanded") === "true" && !$(".whole", item))
      item.appendChild(wholeBlock(block, sample, largest));
  });
}

// The block of a sample. What lies outside of the window is unshaded, because it is not known here.
function wholeBlock(block, sample, largest) {
  const { rows, acts, row } = sample, first = rows[0], last = rows[rows.length - 1];
  const shown = (some, known) => running(some, known ? acts : {}, largest, known ? row : -1);
  const firing = rows.filter((r) => acts[r]);
  const values = firing.map((r, k) => [k ? "  ·  " : "", h("b", {}, chip(tokenAt(r))), " " + figure((largest * acts[r]) / 255)]);
  const plain = h("p", { class: "plain", dir: "auto", hidden: true }, glyphs(plainText(block)));
  const reads = h("button", { type: "button", class: "quiet", "aria-pressed": "false", on: { click: () => {
    plain.hidden = !plain.hidden;
    reads.setAttribute("aria-pressed", String(!plain.hidden));
  } } }, "Plain text");
  return h("div", { class: "whole" },
    h("p", {}, h("span", { class: "out" }, shown(block.filter((r) => r < first), false)), shown(rows, true),
      h("span", { class: "out" }, shown(block.filter((r) => r > last), false))),
    h("p", { class: "values" }, values), reads, plain);
}

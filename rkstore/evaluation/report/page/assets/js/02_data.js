// Data: each file of the folder is a classic script that calls one of these, because file:// allows
// no fetch. Numbers of latents come as columns in base64; what belongs to a latent comes in parts,
// each loaded when one of its latents is looked at.

let META, INDEX, VOCAB, TOKEN_IDS, PROBE = null, NAMES = {};
const TEXT = {}, PARTS = {}, loading = {};
let WHERE = null;

// What is not there: a file that was not copied, or a browser that cannot read one.
class Missing extends Error {}

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Columns are little-endian, as are the machines that browsers run on.
const column = (base64, Kind) => new Kind(bytesOf(base64).buffer);
const idsOf = (base64) => column(base64, META.wide ? Uint32Array : Uint16Array);

function inflated(base64) {
  if (!window.DecompressionStream)
    return Promise.reject(new Missing("a browser from 2023 or later, which can read compressed files"));
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return Promise.resolve(new Response(stream));
}

// Numbers of four bytes, of which all lowest bytes come first, and so on.
function fromPlanes(buffer) {
  const bytes = new Uint8Array(buffer), n = bytes.length / 4, found = new Uint32Array(n);
  for (let k = 0; k < n; k++) found[k] = bytes[k] + 256 * (bytes[n + k] + 256 * (bytes[2 * n + k] + 256 * bytes[3 * n + k]));
  return found;
}

function load(path) {
  if (!loading[path])
    loading[path] = new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = path;
      script.onload = done;
      script.onerror = () => { delete loading[path]; failed(new Missing(path)); };
      document.head.appendChild(script);
    });
  return loading[path];
}

const numbered = (n, digits) => String(n).padStart(digits, "0");

function latentOf(id) {
  const part = Math.floor(id / META.part);
  return load("data/latents/" + numbered(part, 4) + ".js").then(() => PARTS[part]).then((all) => all[id % META.part]);
}

// The text around some rows, in parts; rows are counted from the first that the report has.
function textOf(rows) {
  const parts = new Set();
  for (const row of rows) parts.add(Math.floor(row / META.text_part));
  return Promise.all([...parts].map((part) => load("data/text/" + numbered(part, 3) + ".js")));
}

function tokenAt(row) {
  const part = TEXT[Math.floor(row / META.text_part)];
  return part ? part[row % META.text_part] : undefined;
}

// The span of the store's text that a row of the page is in: rows are numbered through all spans.
function spanOf(row) {
  let before = 0;
  for (const [first, stop] of META.spans) {
    if (row < before + stop - first) return { first, before, length: stop - first };
    before += stop - first;
  }
  throw new RangeError("the report has no row " + row);
}

const inStore = (row) => { const span = spanOf(row); return row - span.before + span.first; };
const blockOf = (row) => Math.floor(inStore(row) / META.block);
const inBlock = (row) => inStore(row) % META.block;

// The rows of the page that are of the same block.
function rowsOfBlock(row) {
  const span = spanOf(row), start = Math.max(span.before, row - inBlock(row));
  const stop = Math.min(span.before + span.length, row - inBlock(row) + META.block);
  return Array.from({ length: stop - start }, (_, k) => start + k);
}

const receive = {
  meta: (value) => { META = value; },
  labels: (value) => { NAMES = value; },
  vocab: (pieces, ids) => { VOCAB = pieces; TOKEN_IDS = column(ids, Uint32Array); },
  index(value) {
    INDEX = {
      count: value.count, rows: value.rows,
      fired: column(value.fired, Uint32Array), largest: column(value.largest, Float32Array),
      telling: idsOf(value.telling), share: column(value.share, Uint8Array),
      norm: value.norm === null ? null : column(value.norm, Float32Array),
      next: value.next === null ? null : column(value.next, Int8Array),
      whose: value.whose === null ? null : column(value.whose, Uint8Array),
    };
  },
  text: (part, value) => { TEXT[part] = idsOf(value); },
  latents: (part, value) => { PARTS[part] = inflated(value).then((found) => found.json()); },
  where: (value) => { WHERE = inflated(value).then((found) => found.arrayBuffer()).then(fromPlanes); },
  probe: (value) => { PROBE = inflated(value).then((found) => found.json()); },
};

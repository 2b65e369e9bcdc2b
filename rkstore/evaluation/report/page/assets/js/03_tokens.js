// Tokens as people read them. A token of the vocabulary is a string, or a list of bytes where it is
// only a part of a character.

const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufe00-\ufe0e\ufeff\ufff9-\ufffc\u{e0000}-\u{e0fff}]/u;
const SIGNS = { "\n": "↵", "\t": "⇥", "\r": "␍", "\u00a0": "⍽" };
const MARK = /\p{M}/u;
const JOINS_BEFORE = /(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\ufe0f)$/u;
const NEEDS_NONJOINER = /(?:\p{Script=Arabic}|\p{Script=Devanagari})$/u;
const MOST_MARKS = 4, MOST_CHARACTERS = 400;

const boxed = (text) => h("span", { class: "boxed" }, text);
const sign = (text) => h("i", {}, text);
const pieceOf = (id) => (id === undefined || VOCAB[id] === undefined ? "" : VOCAB[id]);
const isSpecial = (id) => META.special.includes(id);

// A string as nodes: white space is made visible, controls and too many marks are named.
function glyphs(text) {
  const out = [];
  let run = "", marks = 0, length = 0;
  const flush = () => { if (run) out.push(run); run = ""; };
  for (const character of text) {
    if (++length > MOST_CHARACTERS && !MARK.test(character)) { flush(); out.push("…"); break; }
    const joined = character === "\u200d" && JOINS_BEFORE.test(run);
    const needed = character === "\u200c" && NEEDS_NONJOINER.test(run);
    if (SIGNS[character]) { flush(); out.push(sign(SIGNS[character])); }
    else if (joined || needed) run += character;
    else if (CONTROL.test(character)) {
      flush();
      out.push(boxed("U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")));
    } else if (MARK.test(character)) { if (++marks <= MOST_MARKS) run += character; }
    else run += character;
  }
  flush();
  if (marks > MOST_MARKS) out.push(boxed("+" + whole(marks - MOST_MARKS) + " marks"));
  return out;
}

// The whole of a token, with every character that cannot be seen written out, for a title.
function spelled(piece) {
  if (Array.isArray(piece)) return "bytes " + hex(piece);
  const shown = piece.length > MOST_CHARACTERS ? piece.slice(0, MOST_CHARACTERS) + "…" : piece;
  const escape = (c) => "\\u{" + c.codePointAt(0).toString(16) + "}";
  return '"' + Array.from(shown, (c) => (CONTROL.test(c) || MARK.test(c) || c === "\u00a0" ? escape(c)
    : c === "\n" ? "\\n" : c === "\t" ? "\\t" : c === "\r" ? "\\r" : c === '"' || c === "\\" ? "\\" + c : c)).join("") + '"';
}

// A token by itself, in the mono face; a leading space is shown.
function chip(id, given) {
  const piece = given === undefined ? pieceOf(id) : given, element = h("span", { class: "chip" });
  if (Array.isArray(piece)) put(element, sign("‹" + hex(piece) + "›"));
  else if (given === undefined && isSpecial(id)) put(element, sign(specialName(id)));
  else if (piece === "") put(element, sign("(empty)"));
  else put(element, piece[0] === " " ? [sign("␣"), glyphs(piece.slice(1))] : glyphs(piece));
  element.title = spelled(piece) + (given === undefined ? ", token " + TOKEN_IDS[id] : "");
  return element;
}

const specialName = (id) => (id === META.bos ? "start" : String(pieceOf(id)).replace(/[<>|]/g, "") || "special");

// A token in running text. `a` is its activation in 1/255 of the latent's largest; the space that
// it begins with stands outside of the shade.
function inText(id, a, largest, peak, given) {
  let piece = given === undefined ? pieceOf(id) : given;
  const strength = Math.abs(a), shade = a ? Math.max(1, Math.round(strength / 2.55)) : 0;
  const name = "t" + (a ? (a < 0 ? " minus" : "") : " zero") + (peak ? " peak" : "");
  const element = h("span", { class: name, vars: a ? { "--a": shade } : null }), before = [];
  if (a) element.title = figure((largest * a) / 255) + " · " + spelled(piece);
  if (Array.isArray(piece)) put(element, boxed(hex(piece)));
  else if (given === undefined && isSpecial(id)) { put(element, boxed(specialName(id))); return [element, " "]; }
  else if (/^ +$/.test(piece)) put(element, a || peak ? sign("␣".repeat(Math.min(8, piece.length))) : piece);
  else {
    if (piece[0] === " ") { before.push(" "); piece = piece.slice(1); }
    put(element, glyphs(piece));
  }
  return [before, element];
}

// The tokens of some rows. Neighbours that are parts of characters are joined: if they make whole
// ones these are shown, with the strongest of their activations.
function running(rows, acts, largest, peak) {
  const out = [];
  for (let i = 0; i < rows.length; i++) {
    const piece = pieceOf(tokenAt(rows[i]));
    if (!Array.isArray(piece)) {
      out.push(inText(tokenAt(rows[i]), acts[rows[i]] || 0, largest, rows[i] === peak));
      continue;
    }
    let joined = [], a = 0, isPeak = false;
    for (; i < rows.length && Array.isArray(pieceOf(tokenAt(rows[i]))); i++) {
      const here = acts[rows[i]] || 0;
      joined = joined.concat(pieceOf(tokenAt(rows[i])));
      if (Math.abs(here) > Math.abs(a)) a = here;
      isPeak = isPeak || rows[i] === peak;
    }
    i--;
    const text = new TextDecoder().decode(new Uint8Array(joined));
    out.push(inText(-1, a, largest, isPeak, text.includes("\ufffd") ? joined : text));
  }
  return out;
}

// The text of some rows without any marks, for reading in its own direction.
function plainText(rows) {
  let bytes = [], out = "";
  const flush = () => { out += new TextDecoder().decode(new Uint8Array(bytes)); bytes = []; };
  for (const row of rows) {
    const piece = pieceOf(tokenAt(row));
    if (Array.isArray(piece)) bytes = bytes.concat(piece);
    else { flush(); out += isSpecial(tokenAt(row)) ? "" : piece; }
  }
  flush();
  return out;
}

// The tokens that tell a latent from the rest; an id is stored plus one, 0 means no more.
function tellingIds(latent) {
  const at = latent * META.telling, out = [];
  for (let k = 0; k < META.telling && INDEX.telling[at + k]; k++) out.push(INDEX.telling[at + k] - 1);
  return out;
}

const tellingChips = (latent, most) =>
  h("span", { class: "telling" }, tellingIds(latent).slice(0, most).map((id) => [chip(id), " "]));

function briefly(id) {
  const piece = pieceOf(id);
  if (Array.isArray(piece)) return hex(piece);
  if (isSpecial(id)) return specialName(id);
  return piece.trim() === "" ? (piece.includes("\n") ? "↵" : piece.includes("\t") ? "⇥" : "␣") : glyphs(piece.trim());
}

const isNamed = (latent) => Object.hasOwn(NAMES, latent);

// What a latent is called where there is one line for it: its name, else its telling tokens.
function called(latent, most) {
  if (isNamed(latent)) return glyphs(NAMES[latent]);
  if (!INDEX.fired[latent]) return "never fires";
  return tellingIds(latent).slice(0, most || 3).map((id, k) => [k ? "  " : "", briefly(id)]);
}

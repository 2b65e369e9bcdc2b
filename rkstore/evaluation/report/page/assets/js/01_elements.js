// Elements. What a store or a person wrote only ever becomes text: there is no markup from strings.

const $ = (selector, root) => (root || document).querySelector(selector);
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name === "on") for (const type in value) element.addEventListener(type, value[type]);
    else if (name === "vars") for (const key in value) element.style.setProperty(key, value[key]);
    else element.setAttribute(name, value === true ? "" : value);
  }
  put(element, children);
  return element;
}

function put(element, child) {
  if (child === null || child === undefined || child === false) return;
  if (Array.isArray(child)) child.forEach((one) => put(element, one));
  else element.appendChild(child.nodeType ? child : document.createTextNode(String(child)));
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

function replace(element, ...children) {
  element.textContent = "";
  put(element, children);
}

const section = (title, note, ...rest) =>
  h("section", {}, h("div", { class: "head" }, h("h2", {}, title), h("span", { class: "note" }, note)), rest);
const empty = (title, ...rest) => h("div", { class: "empty" }, h("b", {}, title), rest);
const skeletons = (lines) => Array.from({ length: lines }, () => h("div", { class: "skeleton" }));
const page = (...children) => h("div", { class: "page" }, children);

// Numbers as people read them: three significant digits, thousands in groups, a true minus.

const minus = (text) => text.replace("-", "−");
const whole = (n) => minus(Math.round(n).toLocaleString("en-GB"));

function figure(x, digits) {
  if (x === null || x === undefined || !isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(x))), want = digits || 3;
  if (size < -5 || size > 6) return minus(x.toExponential(want - 1));
  return minus(x.toFixed(Math.max(0, want - 1 - size)));
}

const signed = (x, digits) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);

function percent(p, short) {
  const x = 100 * p;
  if (x === 0) return "0 %";
  const digits = x >= 10 ? 1 : x >= 1 ? 2 : x >= 0.1 ? 3 : x >= 0.001 ? 4 : 1 - Math.ceil(Math.log10(x));
  return x.toFixed(short && x >= 0.001 ? digits - 1 : digits) + " %";
}

const hex = (bytes) => bytes.map((b) => b.toString(16).toUpperCase().padStart(2, "0")).join(" ");
const plural = (n, word) => whole(n) + " " + word + (n === 1 ? "" : "s");

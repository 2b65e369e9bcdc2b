// Charts: SVG at the pixel width of its box, so that its text is never scaled.

const narrow = () => document.documentElement.clientWidth <= 760;

function chartWidth(columns) {
  const width = document.documentElement.clientWidth;
  return narrow() ? width - 32 : Math.floor((Math.min(width, 1240) - 48 - 24 * (columns - 1)) / columns);
}

function ticksOf(low, high, count) {
  const raw = (high - low) / count, size = Math.pow(10, Math.floor(Math.log10(raw))), ratio = raw / size;
  const step = size * (ratio > 7 ? 10 : ratio > 3.5 ? 5 : ratio > 1.5 ? 2 : 1), out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step) out.push(+v.toPrecision(10));
  return out;
}

// Moves names at the ends of lines apart by 13 px, within the chart.
function apart(ends, bottom) {
  ends.sort((a, b) => a.y - b.y);
  for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 13);
  const last = ends.length - 1;
  if (last >= 0 && ends[last].y > bottom) ends[last].y = bottom;
  for (let i = last - 1; i >= 0; i--) ends[i].y = Math.min(ends[i].y, ends[i + 1].y - 13);
}

// Lines: {x, y: [low, high], lines: [{name, on, points, dash}], format…, label}.
function lineChart(spec) {
  const many = spec.lines.length > 6, named = spec.named !== false;
  const W = chartWidth(3), H = 190, left = 42, right = named ? 98 : 8, top = 8, bottom = 26;
  const x = (v) => left + ((v - spec.x[0]) / (spec.x[1] - spec.x[0])) * (W - left - right);
  const y = (v) => H - bottom - ((v - spec.y[0]) / (spec.y[1] - spec.y[0])) * (H - top - bottom);
  const svg = s("svg", { width: W, height: H, role: "img", "aria-label": spec.label });
  for (const v of ticksOf(spec.y[0], spec.y[1], 4)) {
    put(svg, s("line", { class: "grid", x1: left, x2: W - right, y1: y(v), y2: y(v) }));
    put(svg, s("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, (spec.yText || figureTick)(v)));
  }
  for (const v of spec.xTicks || ticksOf(spec.x[0], spec.x[1], 4))
    put(svg, s("text", { x: x(v), y: H - 8, "text-anchor": "middle" }, (spec.xText || whole)(v)));
  put(svg, s("path", { class: "axis", d: "M" + left + " " + (H - bottom) + "H" + (W - right) }));
  const clip = (v) => Math.max(spec.y[0], Math.min(spec.y[1], v)), ends = [];
  spec.lines.slice().sort((a, b) => a.on - b.on).forEach((line) => {
    const at = line.points.map(([px, py]) => x(px).toFixed(1) + " " + y(clip(py)).toFixed(1));
    if (!at.length) return;
    const style = "curve" + (line.on ? " on" : " dash" + line.dash + (many ? " many" : ""));
    put(svg, at.length === 1 ? s("circle", { class: "dot" + (line.on ? " on" : ""), cx: at[0].split(" ")[0], cy: at[0].split(" ")[1], r: 3 })
      : s("path", { class: style, d: "M" + at.join("L") }, s("title", {}, line.name)));
    const last = line.points[line.points.length - 1];
    if (!many || line.on) ends.push({ line, x: x(last[0]), y: y(clip(last[1])) });
  });
  if (named) {
    apart(ends, H - bottom - 4);
    for (const end of ends)
      put(svg, s("text", { x: W - right + 6, y: end.y + 4, class: end.line.on ? "on" : "" }, shortened(end.line.name, 16)));
  }
  return svg;
}

const figureTick = (v) => (v === 0 ? "0" : Math.abs(v) >= 1000 ? whole(v) : String(+v.toPrecision(3)));
const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// A chart is drawn by a function, again whenever its page gets another width.
function chartOf(title, note, drawing) {
  const box = h("div", {}, drawing()), chart = h("figure", {}, h("figcaption", {}, title, h("span", {}, note)), box);
  return Object.assign(chart, { redraw: () => replace(box, drawing()) });
}

// A number on the domain of its column: filled with its interval, hollow where there is none.
function dotChart(value, interval, domain, on) {
  const W = 96, x = (v) => 4 + ((v - domain[0]) / (domain[1] - domain[0])) * (W - 8), mark = on ? " on" : "";
  return s("svg", { width: W, height: 16, "aria-hidden": "true" },
    s("line", { class: "grid", x1: 0, x2: W, y1: 8, y2: 8 }),
    interval && s("line", { class: "reach" + mark, x1: x(interval[0]), x2: x(interval[1]), y1: 8, y2: 8 }),
    s("circle", { class: "dot" + (interval ? " sure" : "") + mark, cx: x(value), cy: 8, r: 3.5 }));
}

// One row of dots for each of some rows: {rows: [name], series: [{name, on, values}], domain}.
function dotRows(spec) {
  const W = chartWidth(3), line = 22, left = Math.min(190, Math.floor(W * 0.48)), right = 12;
  const H = spec.rows.length * line + 26, x = (v) => left + (v / spec.most) * (W - left - right);
  const svg = s("svg", { width: W, height: H, role: "img", "aria-label": spec.label });
  for (const v of ticksOf(0, spec.most, 4)) {
    put(svg, s("line", { class: "grid", x1: x(v), x2: x(v), y1: 4, y2: H - 22 }));
    put(svg, s("text", { x: x(v), y: H - 6, "text-anchor": "middle" }, figureTick(v)));
  }
  spec.rows.forEach((name, k) => {
    const y = k * line + line / 2 + 2;
    put(svg, s("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, shortened(name, Math.floor(left / 6))));
    put(svg, s("line", { class: "grid", x1: left, x2: W - right, y1: y, y2: y }));
    spec.series.slice().sort((a, b) => a.on - b.on).forEach((one) => {
      const value = one.values[k];
      if (value === null || value === undefined) return;
      put(svg, s("circle", { class: "dot" + (one.on ? " sure on" : ""), cx: x(Math.min(value, spec.most)), cy: y, r: 4 },
        s("title", {}, one.name + ": " + figure(value))));
    });
  });
  return svg;
}

// Bars of counts, such as of the latents of a crosscoder by whose they are.
function barChart(spec) {
  const W = chartWidth(3), H = 150, left = 42, bottom = 26, top = 8, most = Math.max(1, ...spec.counts);
  const wide = (W - left - 8) / spec.counts.length, y = (v) => H - bottom - (v / most) * (H - top - bottom);
  const svg = s("svg", { width: W, height: H, role: "img", "aria-label": spec.label });
  for (const v of ticksOf(0, most, 3)) {
    put(svg, s("line", { class: "grid", x1: left, x2: W - 8, y1: y(v), y2: y(v) }));
    put(svg, s("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, whole(v)));
  }
  spec.counts.forEach((count, k) => put(svg, s("rect", { class: "block" + (spec.on && spec.on(k) ? " on" : ""), x: left + k * wide + 1, width: Math.max(1, wide - 2), y: y(count), height: H - bottom - y(count) },
    s("title", {}, spec.names[k] + ": " + whole(count)))));
  spec.ticks.forEach(([at, text], k) => put(svg, s("text", { x: left + at * (W - left - 8), y: H - 8, "text-anchor": k === 0 ? "start" : k === spec.ticks.length - 1 ? "end" : "middle" }, text)));
  put(svg, s("path", { class: "axis", d: "M" + left + " " + (H - bottom) + "H" + (W - 8) }));
  return svg;
}

// Histograms one below the other over one axis, each as high as its own tallest bin, because one may
// be a thousand times narrower than the other: {edges, from, rows: [{name, counts, range}], label}.
// What lies from `from` on is blue in the first.
function histogramRows(spec) {
  const W = narrow() ? chartWidth(3) : 2 * chartWidth(3) + 24, H = 64, line = H + 34, bottom = 26;
  const low = spec.edges[0], high = spec.edges[spec.edges.length - 1], x = (v) => ((v - low) / (high - low)) * W;
  const svg = s("svg", { width: W, height: spec.rows.length * line + bottom, role: "img", "aria-label": spec.label });
  for (const v of ticksOf(low, high, 5)) {
    spec.rows.forEach((_, k) => put(svg, s("line", { class: "grid", x1: x(v), x2: x(v), y1: (k + 1) * line - H, y2: (k + 1) * line })));
    put(svg, s("text", { x: Math.max(10, Math.min(W - 10, x(v))), y: spec.rows.length * line + 18, "text-anchor": "middle" }, figureTick(v)));
  }
  spec.rows.forEach(({ name, counts, range }, k) => {
    const floor = (k + 1) * line, all = counts.reduce((a, b) => a + b, 0), most = Math.max(1, ...counts);
    const bar = (from, to, count, on) => to > from && put(svg, s("rect", { class: "block" + (on ? " on" : ""), x: x(from), width: Math.max(1, x(to) - x(from) - 1), y: floor - (H * count) / most, height: (H * count) / most },
      s("title", {}, figure(from) + " to " + figure(to) + ": " + whole(count) + " of " + whole(all))));
    counts.forEach((count, bin) => {
      const cut = k ? high : Math.max(spec.edges[bin], Math.min(spec.edges[bin + 1], spec.from));
      if (count) { bar(spec.edges[bin], k ? spec.edges[bin + 1] : cut, count, false); bar(cut, k ? cut : spec.edges[bin + 1], count, true); }
    });
    put(svg, s("path", { class: "axis", d: "M0 " + floor + "H" + W }));
    put(svg, s("text", { class: "name", x: 0, y: floor - H - 12 }, whole(all) + " " + name + ", " + range.map((v) => figure(v)).join(" to ")));
    put(svg, s("text", { x: W, y: floor - H - 12, "text-anchor": "end" }, "tallest bin " + percent(most / Math.max(1, all), true)));
  });
  return svg;
}

// A latent's activations: counts in a log scale, in the colours of the shades, above their legend.
function histogram(counts, largest, fired) {
  const W = 272, H = 92, most = Math.max(1, ...counts), log = Math.log10(most + 1), wide = W / counts.length;
  const svg = s("svg", { viewBox: "0 0 " + W + " " + (H + 30), width: "100%", role: "img",
    "aria-label": "Histogram of " + plural(fired, "activation") + " from 0 to " + figure(largest) });
  for (let v = 1; v <= most; v *= 10) {
    const y = H - ((H - 8) * Math.log10(v + 1)) / log;
    put(svg, s("line", { class: "grid", x1: 0, x2: W, y1: y, y2: y }));
    put(svg, s("text", { x: W, y: y - 3, "text-anchor": "end" }, whole(v)));
  }
  const shade = (k, of) => "color-mix(in oklab, var(--act) " + Math.round((100 * (k + 0.5)) / of) + "%, var(--paper))";
  counts.forEach((count, k) => {
    if (!count) return;
    const height = ((H - 8) * Math.log10(count + 1)) / log;
    const range = figure((largest * k) / counts.length) + "–" + figure((largest * (k + 1)) / counts.length);
    put(svg, s("rect", { x: k * wide + 0.5, width: Math.max(0.5, wide - 1), y: H - height, height, "stroke-width": 0.75,
      vars: { fill: shade(k, counts.length), stroke: "color-mix(in oklab, var(--act-ink) 45%, var(--line2))" } },
      s("title", {}, range + ": " + plural(count, "token"))));
  });
  put(svg, s("path", { class: "axis", d: "M0 " + H + "H" + W }));
  for (let k = 0; k < 40; k++)
    put(svg, s("rect", { x: (k * W) / 40, width: W / 40 + 0.4, y: H + 4, height: 8, vars: { fill: shade(k, 40) } }));
  put(svg, s("rect", { class: "grid", x: 0, y: H + 4, width: W, height: 8 }));
  for (let k = 0; k <= META.bands; k++)
    put(svg, s("text", { x: (k * W) / META.bands, y: H + 26, "text-anchor": k === 0 ? "start" : k === META.bands ? "end" : "middle" },
      k === 0 ? "0" : figure((largest * k) / META.bands, 2)));
  return svg;
}

// What every view shares. The file of a view follows in the same module, so nothing here is exported and nothing is
// imported. Text from files reaches the page only through text nodes and attributes, never as markup.

const SVG = "http://www.w3.org/2000/svg";
// Okabe-Ito, as in svg.py
const COLOUR = { blue: "#0072B2", orange: "#E69F00", green: "#009E73", vermilion: "#D55E00", sky: "#56B4E9",
  purple: "#CC79A7", grey: "#8a8a8a" };
const SERIES = [COLOUR.blue, COLOUR.vermilion, COLOUR.green, COLOUR.purple, COLOUR.orange, COLOUR.sky, COLOUR.grey];

function h(tag, attributes = {}, ...children) { return build(document.createElement(tag), attributes, children); }
function g(tag, attributes = {}, ...children) { return build(document.createElementNS(SVG, tag), attributes, children); }
function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}

// packing.py in reverse: {meta, name: typed array, ...}
function unpack(view) {
  if (!view || !view.byteLength) return { meta: {} };
  const bytes = view.buffer ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : view.slice(0);
  const length = new DataView(bytes).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const kinds = { float32: Float32Array, uint8: Uint8Array, int32: Int32Array };
  const found = { meta: header.meta };
  for (const column of header.columns)
    found[column.name] = new kinds[column.kind](bytes, 4 + length + column.offset, column.length);
  return found;
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value === "string") return value; // "inf" and "nan" of strict JSON
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}
const whole = (value) => Math.round(value).toLocaleString("en-US");
const percent = (value) => `${Math.round(100 * value)} %`;
function duration(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// a linear or logarithmic scale from data to pixels, and back
class Scale {
  constructor(low, high, start, end, log = false) {
    if (!(high > low)) [low, high] = log ? [low / 2 || 0.5, low * 2 || 2] : [low - 0.5, low + 0.5];
    Object.assign(this, { low, high, start, end, log });
    this.from = log ? Math.log10(low) : low;
    this.span = (log ? Math.log10(high) : high) - this.from;
  }
  at(value) {
    const place = this.log ? Math.log10(Math.max(value, this.low)) : value;
    return this.start + Math.min(1, Math.max(0, (place - this.from) / this.span)) * (this.end - this.start);
  }
  invert(pixel) {
    const place = this.from + ((pixel - this.start) / (this.end - this.start)) * this.span;
    return this.log ? 10 ** place : place;
  }
  ticks(count = 5) {
    if (this.log) {
      const [first, last] = [Math.floor(Math.log10(this.low)), Math.ceil(Math.log10(this.high))];
      const steps = last - first > 3 ? [1] : [1, 2, 5];
      const every = Math.max(1, Math.ceil((last - first) / 7));
      const found = [];
      for (let power = first; power <= last; power += every)
        for (const step of steps) {
          const tick = Number(`${step}e${power}`);
          if (tick >= this.low && tick <= this.high) found.push(tick);
        }
      return found;
    }
    const range = this.high - this.low;
    let step = 10 ** Math.floor(Math.log10(range / count));
    step *= [1, 2, 5, 10].find((factor) => range / (step * factor) <= count + 1) || 10;
    const found = [];
    for (let n = Math.ceil(this.low / step - 1e-9); n * step <= this.high + 1e-9 * step; n++)
      found.push(Number((n * step).toPrecision(12)));
    return found;
  }
}

function extent(arrays, positive = false) {
  let [low, high] = [Infinity, -Infinity];
  for (const array of arrays) for (const value of array)
    if (Number.isFinite(value) && (!positive || value > 0)) { if (value < low) low = value; if (value > high) high = value; }
  return low <= high ? [low, high] : null;
}

function axes(parent, x, y, { xLabel = "", yLabel = "", xTicks = true, count = 5 } = {}) {
  for (const tick of y.ticks(count)) {
    parent.append(g("line", { x1: x.start, x2: x.end, y1: y.at(tick), y2: y.at(tick), class: "gn-grid" }),
      g("text", { x: x.start - 6, y: y.at(tick) + 4, "text-anchor": "end", class: "gn-tick" }, number(tick)));
  }
  for (const tick of x.ticks(x.end - x.start > 400 ? 8 : 4)) {
    parent.append(g("line", { x1: x.at(tick), x2: x.at(tick), y1: y.start, y2: y.end, class: "gn-grid" }));
    if (xTicks) parent.append(
      g("text", { x: x.at(tick), y: y.start + 15, "text-anchor": "middle", class: "gn-tick" }, number(tick, 6)));
  }
  parent.append(g("line", { x1: x.start, x2: x.end, y1: y.start, y2: y.start, class: "gn-axis" }));
  if (xLabel) parent.append(g("text", { x: (x.start + x.end) / 2, y: y.start + 30, "text-anchor": "middle",
    class: "gn-tick" }, xLabel));
  if (yLabel) parent.append(g("text", { x: x.start - 54, y: (y.start + y.end) / 2, "text-anchor": "middle",
    class: "gn-tick", transform: `rotate(-90 ${x.start - 54} ${(y.start + y.end) / 2})` }, yLabel));
}

function path(xs, ys, x, y) {
  let [text, pen] = ["", "M"];
  for (let i = 0; i < xs.length; i++) {
    if (!Number.isFinite(ys[i]) || (y.log && !(ys[i] > 0))) { pen = "M"; continue; }
    text += `${pen}${x.at(xs[i]).toFixed(1)} ${y.at(ys[i]).toFixed(1)}`;
    pen = "L";
  }
  return text;
}
function line(xs, ys, x, y, colour, more = {}) {
  return g("path", { d: path(xs, ys, x, y), fill: "none", stroke: colour, "stroke-width": 1.6, ...more });
}
function legend(parent, x, y, entries) {
  for (const [name, colour, dash] of entries) {
    parent.append(g("line", { x1: x, x2: x + 16, y1: y - 4, y2: y - 4, stroke: colour, "stroke-width": 3,
      "stroke-dasharray": dash || null }), g("text", { x: x + 20, y, class: "gn-tick" }, name));
    x += 34 + 6.1 * name.length;
  }
}

// cividis turned round (pale is little, dark is much), which reads the same for every common kind of colour vision
const CIVIDIS = ["#fee838", "#e1cc55", "#c3b369", "#a59c74", "#8a8678", "#707173", "#575d6d", "#3b496c", "#123570", "#00224e"]
  .map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
function shades(share) {
  const place = Math.min(1, Math.max(0, share)) * (CIVIDIS.length - 1);
  const index = Math.min(CIVIDIS.length - 2, Math.floor(place));
  return CIVIDIS[index].map((value, i) => Math.round(value + (CIVIDIS[index + 1][i] - value) * (place - index)));
}
const heat = (share) => `rgb(${shades(share).join(",")})`;
const onHeat = (share) => (share > 0.45 ? "#fff" : "#111");

// a small box of text lines that follows the mouse
function hint(root) {
  const box = h("div", { class: "gn-hint", role: "status" });
  root.append(box);
  return {
    show(event, lines) {
      box.replaceChildren(...lines.map((text, i) => h("div", i ? {} : { class: "gn-strong" }, text)));
      const frame = root.getBoundingClientRect();
      const left = event.clientX - frame.left;
      box.style.display = "block";
      box.style.left = `${Math.min(left + 14, Math.max(0, frame.width - box.offsetWidth - 4))}px`;
      box.style.top = `${event.clientY - frame.top + 16}px`;
    },
    hide() { box.style.display = "none"; },
  };
}

// the place of a mouse event in the units of an svg's viewBox
function place(svg, event) {
  const frame = svg.getBoundingClientRect();
  const box = svg.viewBox.baseVal;
  return [((event.clientX - frame.left) / frame.width) * box.width, ((event.clientY - frame.top) / frame.height) * box.height];
}

let messages = 0;
function send(model, message) {
  model.set("event", { ...message, n: ++messages, at: Date.now() });
  model.save_changes();
}

// one drawing a frame, however many traits changed; returns what stops it
function follow(model, draw) {
  let waiting = 0;
  const later = () => { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); }); };
  model.on("change:state", later);
  model.on("change:data", later);
  draw();
  return () => { cancelAnimationFrame(waiting); for (const name of ["state", "data"]) model.off?.(`change:${name}`, later); };
}

function frame(el, name) {
  const error = h("div", { class: "gn-error", role: "alert" });
  const root = h("div", { class: `geonb gn-${name}` });
  el.replaceChildren(root);
  return { root, error, complain(text) { error.textContent = text || ""; error.style.display = text ? "block" : "none"; } };
}
const button = (label, title, onclick, more = {}) => h("button", { type: "button", class: "gn-button", title, onclick, ...more }, label);
function choice(label, options, value, onchange) {
  const select = h("select", { class: "gn-select", "aria-label": label, onchange: () => onchange(select.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  select.value = value;
  return select;
}

// SpectrumExplorer: a map of layers x roles on the left, the chosen matrix's spectrum on the right.

function render({ model, el }) {
  const { root, error, complain } = frame(el, "spectrum-explorer");
  const tip = hint(root);
  let state = {}, data = { meta: {} }, scalar = null, chosen = null, logX = true, cells = new Map(), order = { layers: [], roles: [] };

  const name = h("span", { class: "gn-name" });
  const progress = h("div"), progressBox = h("div", { class: "gn-progress gn-grow" }, progress);
  const facts = h("span", { class: "gn-soft" });
  const pick = h("span");
  const keys = h("span", { class: "gn-soft" }, "click a cell, or use the arrow keys");
  const map = g("svg", { tabindex: 0, role: "grid", "aria-label": "Layers by roles; arrow keys choose a matrix" });
  const members = h("div", { class: "gn-bar gn-members" });
  const plot = g("svg", { role: "img", "aria-label": "Singular values of the chosen matrix" });
  const title = h("div", { class: "gn-strong gn-chosen-name" });
  const scalars = h("div", { class: "gn-soft gn-scalars" });
  const axis = button("log index", "Switch the horizontal axis between logarithmic and linear", () => { logX = !logX; draw(); });
  root.append(h("div", { class: "gn-bar" }, name, pick, facts, progressBox), h("div", { class: "gn-two" },
    h("div", {}, map, members, keys), h("div", {}, title, scalars, plot, h("div", { class: "gn-bar" }, axis))), error);

  const labelOf = (key) => (state.scalars.find(([found]) => found === key) || [key, key])[1];
  const isShare = (key) => (state.scalars.find(([found]) => found === key) || [])[2];
  const shownValue = (value) => (isShare(scalar) ? percent(value) : number(value));
  const key = (layer, role) => `${layer === null ? "-" : layer}|${role}`;

  function arrange() {
    cells = new Map();
    state.matrices.forEach((matrix, index) => {
      const at = key(matrix.layer, matrix.role);
      if (!cells.has(at)) cells.set(at, []);
      cells.get(at).push(index);
    });
    const layers = [...new Set(state.matrices.map((matrix) => matrix.layer).filter((layer) => layer !== null))].sort((a, b) => a - b);
    if (state.matrices.some((matrix) => matrix.layer === null)) layers.push(null);
    order = { layers, roles: state.roles };
  }

  function domain(values) {
    if (isShare(scalar)) return { low: 0, high: 1, at: (value) => value };
    const found = extent([values]);
    if (!found) return { low: 0, high: 1, at: () => 0.5 };
    const [low, high] = found, positive = extent([values], true);
    if (low >= 0 && positive && high > 30 * positive[0]) {
      const from = Math.log(positive[0]), span = Math.log(high) - from;
      return { low: positive[0], high, log: true, at: (value) => (value > 0 ? (Math.log(value) - from) / span : 0) };
    }
    return { low, high, at: (value) => (high > low ? (value - low) / (high - low) : 0.5) };
  }
  function median(values) {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    if (!sorted.length) return NaN;
    const middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  function draw() {
    const before = state;
    state = model.get("state");
    const block = model.get("data");
    if (block !== draw.block) { draw.block = block; data = unpack(block); }
    if (!state.matrices) return;
    complain(state.error);
    if (before.matrices !== state.matrices) arrange();
    if (scalar === null || before.scalar !== state.scalar) scalar = state.scalar;
    if (chosen === null || before.selected !== state.selected) chosen = state.selected;
    name.textContent = state.title;
    if (!pick.firstChild) pick.append(choice("Quantity", state.scalars.map(([found, label]) => [found, label]), scalar,
      (value) => { scalar = value; send(model, { kind: "scalar", key: value }); draw(); }));
    pick.firstChild.value = scalar;
    const total = state.matrices.length;
    facts.textContent = state.done < total ? `${state.done} of ${total} matrices measured` : `${total} matrices`;
    progress.style.width = `${(100 * state.done) / Math.max(1, total)}%`;
    progressBox.style.display = state.done < total ? "" : "none";
    drawMap();
    drawMembers();
    drawSpectrum();
    root.dataset.done = state.done;
  }

  function drawMap() {
    const { layers, roles } = order;
    const values = data[scalar] || [];
    const cellValues = new Map([...cells].map(([at, found]) => [at, median(found.map((index) => values[index] ?? NaN))]));
    const scale = domain([...cellValues.values()]);
    const left = 62, top = 58, wide = (520 - left - 8) / Math.max(1, roles.length);
    const high = Math.max(7, Math.min(38, 560 / Math.max(1, layers.length)));
    const layer = g("g");
    layer.append(g("text", { x: left - 6, y: 18, "text-anchor": "end", class: "gn-tick" }, number(scale.low)));
    for (let i = 0; i < 20; i++) layer.append(g("rect", { x: left + 9 * i, y: 9, width: 9.3, height: 10, fill: heat(i / 19) }));
    layer.append(g("text", { x: left + 186, y: 18, class: "gn-tick" }, `${number(scale.high)}${scale.log ? "  (log scale)" : ""}`));
    roles.forEach((role, column) => layer.append(g("text", { x: left + wide * (column + 0.5), y: top - 8, "text-anchor": "middle", class: "gn-tick" }, role)));
    const every = Math.max(1, Math.round(13 / high));
    layers.forEach((found, row) => {
      if (row % every === 0 || found === null) layer.append(g("text", { x: left - 6, y: top + high * (row + 0.5) + 4, "text-anchor": "end", class: "gn-tick" },
        found === null ? "outside" : `layer ${found}`));
      roles.forEach((role, column) => {
        const at = key(found, role);
        if (!cells.has(at)) return;
        const value = cellValues.get(at), known = Number.isFinite(value), share = known ? scale.at(value) : 0;
        const x = left + wide * column + 1, y = top + high * row + 1;
        const cell = g("rect", { x, y, width: wide - 2, height: high - 2, class: "gn-hot", role: "gridcell", "data-cell": at,
          fill: known ? heat(share) : "none", stroke: known ? null : "currentColor", "stroke-opacity": 0.3, "stroke-dasharray": known ? null : "2 2",
          "aria-label": `${state.matrices[cells.get(at)[0]].name}: ${known ? shownValue(value) : "not measured"}` });
        cell.addEventListener("click", () => { select(cells.get(at)[0]); map.focus({ preventScroll: true }); });
        cell.addEventListener("mousemove", (event) => tip.show(event, describe(at, value)));
        cell.addEventListener("mouseleave", () => tip.hide());
        layer.append(cell);
        const many = cells.get(at).length, text = known ? shownValue(value) : "";
        if (text && high >= 15 && wide >= 7 * text.length)
          layer.append(g("text", { x: x + wide / 2 - 1, y: y + high / 2 + 3, "text-anchor": "middle", class: "gn-cell", style: `fill:${onHeat(share)}` }, text));
        if (many > 1 && high >= 15 && wide >= 60)
          layer.append(g("text", { x: x + wide - 5, y: y + high / 2 + 3, "text-anchor": "end", class: "gn-cell", style: `fill:${onHeat(share)};fill-opacity:.75` }, `×${many}`));
      });
    });
    const matrix = state.matrices[chosen];
    if (matrix) {
      const row = layers.indexOf(matrix.layer), column = roles.indexOf(matrix.role);
      layer.append(g("rect", { class: "gn-chosen", x: left + wide * column, y: top + high * row, width: wide, height: high }));
    }
    map.setAttribute("viewBox", `0 0 520 ${top + high * layers.length + 6}`);
    map.replaceChildren(layer);
  }
  function describe(at, value) {
    const found = cells.get(at), first = state.matrices[found[0]];
    const head = found.length > 1 ? `${found.length} matrices, the first is ${first.name}` : first.name;
    return [head, `${first.shape[0]} × ${first.shape[1]}`, `${labelOf(scalar)}: ${Number.isFinite(value) ? shownValue(value) : "not measured yet"}${found.length > 1 ? " (median)" : ""}`];
  }

  // experts, and whatever else shares a layer and a role
  function drawMembers() {
    const matrix = state.matrices[chosen];
    const found = matrix ? cells.get(key(matrix.layer, matrix.role)) : [];
    if (!found || found.length < 2) { members.replaceChildren(); return; }
    const values = data[scalar] || [];
    const scale = domain(found.map((index) => values[index] ?? NaN));
    const wide = Math.max(4, Math.min(26, 500 / found.length));
    const strip = g("svg", { viewBox: `0 0 ${wide * found.length + 4} 26`, style: `width:${wide * found.length + 4}px;max-width:100%` });
    found.forEach((index, column) => {
      const value = values[index] ?? NaN, known = Number.isFinite(value);
      const cell = g("rect", { x: wide * column + 2, y: 3, width: Math.max(1, wide - 1), height: 20, class: "gn-hot", "data-member": index,
        fill: known ? heat(scale.at(value)) : "none", stroke: index === chosen ? COLOUR.vermilion : "none", "stroke-width": 2 });
      cell.addEventListener("click", () => select(index));
      cell.addEventListener("mousemove", (event) => tip.show(event, [state.matrices[index].name, `${labelOf(scalar)}: ${known ? shownValue(value) : "not measured"}`]));
      cell.addEventListener("mouseleave", () => tip.hide());
      strip.append(cell);
    });
    members.replaceChildren(h("span", { class: "gn-soft" }, `${found.length} in this cell`), strip);
  }

  function drawSpectrum() {
    const matrix = state.matrices[chosen];
    if (!matrix) return;
    title.textContent = matrix.name;
    const value = (found) => (data[found] ? data[found][chosen] : NaN);
    scalars.textContent = Number.isFinite(value("sigma_k")) ? [`${matrix.shape[0]} × ${matrix.shape[1]}`, `k ${whole(value("structural_rank"))}`, `σₖ ${number(value("sigma_k"))}`,
      `σ₁ ${number(value("sigma_max"))}`, `tail ${whole(value("tail_dims"))}`, `effective rank ${number(value("effective_rank"), 4)}`].join(" · ") : "";
    const row = data.curve_of ? data.curve_of.indexOf(chosen) : -1;
    plot.setAttribute("viewBox", "0 0 480 360");
    const layer = g("g");
    if (row < 0) {
      layer.append(g("text", { x: 60, y: 60 }, state.done < state.matrices.length ? "not measured yet" : "asking for this spectrum …"));
      plot.replaceChildren(layer);
      return;
    }
    const n = data.meta.points, slice = (found) => Array.from(data[found].subarray(row * n, row * n + n)).filter(Number.isFinite);
    const index = slice("index"), values = slice("values"), twin = slice("twin");
    const top = values[0];
    if (!(top > 0)) { layer.append(g("text", { x: 60, y: 60 }, "every entry of this matrix is zero")); plot.replaceChildren(layer); return; }
    const low = Math.max(Math.min(values.at(-1), twin.at(-1)), top * 1e-4) / 1.15;
    const x = new Scale(1, Math.max(2, index.at(-1)), 56, 470, logX), y = new Scale(low, Math.max(top, twin[0]) * 1.25, 310, 34, true);
    const k = value("structural_rank"), sigma = value("sigma_k"), edge = data.noise_edge[chosen];
    layer.append(g("rect", { x: x.at(k), y: y.end, width: Math.max(0, x.end - x.at(k)), height: y.start - y.end, fill: COLOUR.sky, "fill-opacity": 0.2, class: "gn-tail" }));
    axes(layer, x, y, { xLabel: "index of the singular value", count: 4 });
    layer.append(line([1, index.at(-1)], [edge, edge], x, y, COLOUR.green, { "stroke-dasharray": "2 3", "data-series": "noise edge" }),
      line(index, twin, x, y, COLOUR.grey, { "stroke-dasharray": "5 3", "data-series": "twin" }),
      line(index, values, x, y, COLOUR.blue, { "stroke-width": 2.4, "data-series": "values" }),
      g("line", { x1: x.at(k), x2: x.at(k), y1: y.start, y2: y.at(sigma), stroke: COLOUR.vermilion, "stroke-dasharray": "3 3" }),
      g("circle", { cx: x.at(k), cy: y.at(sigma), r: 5, fill: COLOUR.vermilion, class: "gn-k" }),
      g("text", { x: x.at(k) - 9, y: y.at(sigma) + 18, "text-anchor": "end", class: "gn-halo" }, `k = ${whole(k)}, σₖ = ${number(sigma)}`));
    legend(layer, 56, 20, [["singular values", COLOUR.blue], ["random twin", COLOUR.grey, "5 3"], ["noise edge", COLOUR.green, "2 3"], ["tail", COLOUR.sky]]);
    plot.replaceChildren(layer);
    plot.drawn = { x, y, index, values, twin };
    axis.textContent = logX ? "index: log" : "index: linear";
  }

  function select(index) {
    chosen = index;
    send(model, { kind: "select", name: state.matrices[index].name });
    drawMap(); drawMembers(); drawSpectrum();
  }
  map.addEventListener("keydown", (event) => {
    const matrix = state.matrices[chosen];
    if (!matrix) return;
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault(); event.stopPropagation();
    const found = cells.get(key(matrix.layer, matrix.role));
    if (event.shiftKey && step[1]) {
      const next = found[found.indexOf(chosen) + step[1]];
      if (next !== undefined) select(next);
      return;
    }
    let row = order.layers.indexOf(matrix.layer), column = order.roles.indexOf(matrix.role);
    for (;;) {
      row += step[0]; column += step[1];
      if (row < 0 || column < 0 || row >= order.layers.length || column >= order.roles.length) return;
      const next = cells.get(key(order.layers[row], order.roles[column]));
      if (next) return select(next[0]);
    }
  });
  plot.addEventListener("mousemove", (event) => {
    if (!plot.drawn) return;
    const { x, index, values, twin } = plot.drawn, [px, py] = place(plot, event);
    if (px < 50 || px > 475 || py > 320) return tip.hide();
    const target = x.invert(px);
    let best = 0;
    index.forEach((found, i) => { if (Math.abs(found - target) < Math.abs(index[best] - target)) best = i; });
    tip.show(event, [`singular value ${whole(index[best])}`, `σ = ${number(values[best], 4)}`, `random twin ${number(twin[best], 4)}`]);
  });
  plot.addEventListener("mouseleave", () => tip.hide());
  return follow(model, draw);
}
export default { render };

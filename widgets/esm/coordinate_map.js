
// CoordinateMap: k of every two coordinates by label, a map of them, and silhouettes against permuted labels.

function render({ model, el }) {
  const { root, error, complain } = frame(el, "coordinate-map");
  const tip = hint(root);
  let state = {}, chosen = -1;
  const sentence = h("div", { class: "gn-name" }), key = h("div", { class: "gn-bar", role: "group", "aria-label": "Labels" });
  const svg = g("svg", { role: "img", "aria-label": "Kernel of every two coordinates, and their map" }), rows = h("div", { class: "gn-soft" });
  root.append(sentence, key, svg, rows, error);
  const top = 26, side = 420, left = 8, start = 480, end = 952;

  function shade(k) {
    const share = Math.sqrt(Math.min(1, Math.abs(k))), far = k >= 0 ? [0, 60, 120] : [200, 90, 0];
    return `rgb(${far.map((one) => Math.round(255 + (one - 255) * share)).join(",")})`;
  }

  function draw() {
    state = model.get("state");
    if (!state.items) return;
    complain(state.error);
    sentence.textContent = state.sentence;
    key.replaceChildren(...state.labels.map((label, index) => button("", "Show this label alone, or all", () => { chosen = chosen === index ? -1 : index; draw(); key.children[index]?.focus(); },
      { "aria-pressed": String(chosen === index), "data-label": label.name })));
    [...key.children].forEach((one, index) => one.append(h("span", { style: `color:${state.labels[index].colour}`, "aria-hidden": "true" }, state.labels[index].hollow ? "○ " : "● "), `${state.labels[index].name} ${number(state.labels[index].silhouette, 2)}`));
    const layer = g("g"), n = state.items.length, step = side / n, faded = (item) => chosen >= 0 && state.items[item].label !== chosen;
    const tell = (item) => [state.items[item].name, state.labels[state.items[item].label].name];
    layer.append(g("text", { x: left, y: 14, class: "gn-title" }, "kernel k, by label"),
      g("text", { x: start, y: 14, class: "gn-title" }, `map of sqrt(2 − 2k): two axes show ${percent(state.shown)}`));
    const heatmap = g("g"), frameOf = g("rect", { x: left + 8, y: top, width: side, height: side, fill: "#fff" });
    heatmap.append(frameOf);
    state.kernel.forEach((row, i) => row.forEach((k, j) => {
      if (Math.abs(k) >= 0.01) heatmap.append(g("rect", { x: left + 8 + step * j, y: top + step * i, width: step + 0.3, height: step + 0.3, fill: shade(k), "fill-opacity": faded(i) && faded(j) ? 0.15 : 1 }));
    }));
    heatmap.addEventListener("mousemove", (event) => {
      const [x, y] = place(svg, event), i = Math.floor((y - top) / step), j = Math.floor((x - left - 8) / step);
      if (i >= 0 && j >= 0 && i < n && j < n) tip.show(event, [`k ${number(state.kernel[i][j])}`, tell(i).join(" · "), tell(j).join(" · ")]);
    });
    heatmap.addEventListener("mouseleave", () => tip.hide());
    layer.append(heatmap);
    state.items.forEach((item, i) => layer.append(g("rect", { x: left, y: top + step * i, width: 6, height: step, fill: state.labels[item.label].colour, "fill-opacity": state.labels[item.label].hollow ? 0.45 : 1 })));
    const xs = state.items.map((item) => item.place[0]), ys = state.items.map((item) => item.place[1]);
    const [a, b] = [extent([xs]), extent([ys])], half = 0.55 * Math.max(a[1] - a[0], b[1] - b[0], 1e-9), middle = [(a[0] + a[1]) / 2, (b[0] + b[1]) / 2];
    const x = new Scale(middle[0] - half, middle[0] + half, start + 26, start + 26 + side), y = new Scale(middle[1] - half, middle[1] + half, top + side, top);
    layer.append(g("rect", { x: start, y: top, width: end - start, height: side, fill: "none", class: "gn-axis" }));
    state.items.forEach((item, i) => {
      const label = state.labels[item.label];
      const dot = g("circle", { cx: x.at(item.place[0]), cy: y.at(item.place[1]), r: 5, fill: label.hollow ? "transparent" : label.colour, stroke: label.colour, "stroke-width": 1.5, opacity: faded(i) ? 0.15 : 1, "data-name": item.name });
      dot.addEventListener("mousemove", (event) => tip.show(event, tell(i)));
      dot.addEventListener("mouseleave", () => tip.hide());
      layer.append(dot);
      if ((n <= 30 || chosen >= 0) && !faded(i)) layer.append(g("text", { x: x.at(item.place[0]) + 8, y: y.at(item.place[1]) + 4, class: "gn-tick gn-halo" }, item.name.length > 24 ? `${item.name.slice(0, 23)}…` : item.name));
    });
    svg.setAttribute("viewBox", `0 0 960 ${top + side + 8}`);
    svg.replaceChildren(layer);
    rows.replaceChildren(...state.sides.map((one) => h("div", { "data-side": one.name }, `silhouette, ${one.name}: ${number(one.value)} [${one.interval.map((end) => number(end)).join(", ")}], permuted labels ${one.null.map((end) => number(end)).join(" to ")}, p ${number(one.p, 2)}`)));
  }
  return follow(model, draw);
}
export default { render };

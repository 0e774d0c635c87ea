// RunComparison: losses of several runs, their changes with intervals, paired differences, and what differs in the plans.

function render({ model, el }) {
  const { root, error, complain } = frame(el, "run-comparison");
  const tip = hint(root);
  let state = {};
  const hidden = new Set();
  const names = h("div", { class: "gn-bar" }), svg = g("svg", { role: "img", "aria-label": "Losses of the runs" });
  const forests = h("div", { class: "gn-two" }), pairs = h("div"), differences = h("div");
  root.append(names, svg, forests, pairs, differences, error);
  const colour = (index) => SERIES[index % SERIES.length];

  function draw() {
    state = model.get("state");
    if (!state.runs) return;
    complain(state.error);
    names.replaceChildren(...state.runs.map((run, index) => h("span", { class: `gn-chip${hidden.has(index) ? " gn-off" : ""}`, role: "button", tabindex: 0, "data-run": run.label, title: run.problem || `${run.what}: show or hide`,
      onclick: () => { if (!hidden.delete(index)) hidden.add(index); draw(); } }, h("span", { class: "gn-dot", style: `color:${colour(index)};background:${colour(index)}` }), `${run.label} · ${run.problem ? run.state : `${run.controller}, ${run.verdict}`}`)));
    curves();
    forests.replaceChildren(forest("task", "Task loss against the base model"), forest("retained", "Held-out base text against the base model"));
    pairs.replaceChildren(...(state.pairs.length ? [h("div", { class: "gn-strong", style: "margin-top:.6rem" }, "Paired differences, nats per token"), h("div", { class: "gn-scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...["runs", "quantity", "difference", "interval", "verdict", "why"].map((label) => h("th", {}, label)))),
      h("tbody", {}, ...state.pairs.map((pair) => h("tr", { "data-verdict": pair.verdict }, h("td", {}, `${pair.second} − ${pair.first}`), h("td", {}, pair.quantity), h("td", { class: "gn-num" }, pair.difference ? number(pair.difference[0]) : "–"),
        h("td", { class: "gn-num" }, pair.difference ? `[${number(pair.difference[1])}, ${number(pair.difference[2])}]` : "–"), h("td", {}, pair.sentence), h("td", { class: "gn-why" }, pair.because))))))] : []));
    const found = Object.entries(state.differences);
    differences.replaceChildren(...(found.length ? [h("div", { class: "gn-strong", style: "margin-top:.6rem" }, "What differs between the plans"), h("div", { class: "gn-scroll" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, ""), ...state.runs.map((run) => h("th", {}, run.label)))),
      h("tbody", {}, ...found.map(([key, values]) => h("tr", {}, h("td", {}, key), ...values.map((value) => h("td", { class: "gn-id" }, value)))))))] : []));
  }

  function curves() {
    const shown = state.runs.map((run, index) => [run, index]).filter(([, index]) => !hidden.has(index));
    const points = shown.flatMap(([run]) => [...run.validation, ...run.retention]);
    const layer = g("g");
    layer.append(g("text", { x: 64, y: 18, class: "gn-title" }, "Loss over the steps: validation solid, held-out base text dashed"));
    svg.setAttribute("viewBox", "0 0 960 300");
    if (!points.length) { layer.append(g("text", { x: 64, y: 60 }, "nothing was measured yet")); svg.replaceChildren(layer); return; }
    const steps = extent([points.map(([step]) => step)]), losses = extent([points.map(([, loss]) => loss)]);
    const margin = 0.05 * (losses[1] - losses[0]);
    const x = new Scale(0, Math.max(1, steps[1]), 64, 946), y = new Scale(losses[0] - margin, losses[1] + margin, 262, 32);
    axes(layer, x, y, { xLabel: "step", yLabel: "nats per token" });
    for (const [run, index] of shown) for (const [name, dash] of [["validation", null], ["retention", "6 4"]]) {
      layer.append(line(run[name].map(([step]) => step), run[name].map(([, loss]) => loss), x, y, colour(index), { "stroke-width": 2, "stroke-dasharray": dash, "data-series": `${run.label} ${name}` }));
      for (const [step, loss] of run[name]) {
        const dot = g("circle", { cx: x.at(step), cy: y.at(loss), r: 3.5, fill: colour(index) });
        dot.addEventListener("mousemove", (event) => tip.show(event, [run.label, `step ${whole(step)}: ${name} ${number(loss, 4)}`]));
        dot.addEventListener("mouseleave", () => tip.hide());
        layer.append(dot);
      }
    }
    svg.replaceChildren(layer);
  }

  function forest(name, title) {
    const layer = g("g"), row = 24, height = 60 + row * state.runs.length;
    const box = g("svg", { viewBox: `0 0 470 ${height}`, class: "gn-forest" });
    box.append(layer);
    layer.append(g("text", { x: 130, y: 16, class: "gn-title" }, title));
    const known = state.runs.flatMap((run) => run[name] || []);
    if (!known.length) { layer.append(g("text", { x: 130, y: 44, class: "gn-tick" }, "not measured yet")); return box; }
    const found = extent([known, [0]]), margin = 0.06 * (found[1] - found[0] || 1);
    const x = new Scale(found[0] - margin, found[1] + margin, 130, 460), bottom = 28 + row * state.runs.length;
    for (const tick of x.ticks(4)) layer.append(g("line", { x1: x.at(tick), x2: x.at(tick), y1: 28, y2: bottom, class: tick === 0 ? "gn-axis" : "gn-grid" }),
      g("text", { x: x.at(tick), y: bottom + 14, "text-anchor": "middle", class: "gn-tick" }, number(tick)));
    state.runs.forEach((run, index) => {
      const at = 28 + row * (index + 0.5), value = run[name];
      layer.append(g("text", { x: 122, y: at + 4, "text-anchor": "end" }, run.label.length > 18 ? `…${run.label.slice(-17)}` : run.label));
      if (!value) return;
      const mark = g("g", {}, g("line", { x1: x.at(value[1]), x2: x.at(value[2]), y1: at, y2: at, stroke: colour(index), "stroke-width": 3, class: "gn-interval" }), g("circle", { cx: x.at(value[0]), cy: at, r: 4.5, fill: colour(index) }));
      mark.addEventListener("mousemove", (event) => tip.show(event, [run.label, `${number(value[0], 4)} [${number(value[1], 4)}, ${number(value[2], 4)}] nats per token`]));
      mark.addEventListener("mouseleave", () => tip.hide());
      layer.append(mark);
    });
    return box;
  }
  return follow(model, draw);
}
export default { render };

// AdapterCard: every adapted matrix against sigma_k and a random adapter, and what was found in the files.

const VERDICTS = { inside: "met", beyond: "bad", broken: "bad", unmoved: "notmet", unmeasured: "unmeasured" };

function render({ model, el }) {
  const { root, error, complain } = frame(el, "adapter-card");
  const tip = hint(root);
  let state = {}, bySize = false;
  const head = h("div", { class: "gn-bar" }), because = h("div", {}), facts = h("div", { class: "gn-soft" });
  const order = button("sort by size", "Largest first, or in the order of the file", () => { bySize = !bySize; draw(); });
  const findings = h("div");
  const svg = g("svg", { role: "img", "aria-label": "Size of the change of every matrix" });
  root.append(head, because, facts, findings, h("div", { class: "gn-bar" }, order), h("div", { class: "gn-scroll" }, svg), error);

  function draw() {
    state = model.get("state");
    if (!state.rows) return;
    complain(state.error);
    head.replaceChildren(h("span", { class: "gn-name" }, state.title),
      h("span", { class: `gn-chip gn-${VERDICTS[state.verdict] || "unmeasured"}`, "data-verdict": state.verdict }, h("span", { class: "gn-dot" }), `scale: ${state.verdict}`));
    because.textContent = state.because;
    const declared = state.declared;
    facts.textContent = [`r ${declared.r ?? "not stated"}`, `alpha ${declared.alpha ?? "not stated"}`, `scale ${declared.rule}`,
      `${whole(declared.parameters)} numbers`, `base ${state.base ?? "not given"}`, state.folder].join(" · ");
    findings.replaceChildren(...state.findings.map(([kind, subject, why]) => h("div", { class: kind === "problem" ? "gn-error gn-finding" : "gn-note gn-finding", style: "display:block" },
      h("strong", {}, `${kind}: `), h("span", {}, subject), ": ", why)));
    order.setAttribute("aria-pressed", String(bySize));
    const rows = bySize ? [...state.rows].sort((a, b) => (b.size ?? -1) - (a.size ?? -1)) : state.rows;
    const step = rows.length <= 40 ? 18 : 13, top = 44, left = 300, end = 680, bottom = top + step * rows.length;
    const layer = g("g");
    legend(layer, left, 16, [[state.unit, COLOUR.blue], ["random adapter of equal norm and rank", COLOUR.grey]]);
    layer.append(g("text", { x: 730, y: 16, class: "gn-title" }, "rank used of declared"));
    const found = extent([rows.map((row) => row.size), rows.map((row) => row.null), state.is_relative ? [1] : []], true) || [0.1, 1];
    const x = new Scale(found[0] / 1.4, found[1] * 1.4, left, end, true), y = new Scale(0, 1, bottom, top);
    for (const tick of x.ticks()) layer.append(g("line", { x1: x.at(tick), x2: x.at(tick), y1: top, y2: bottom, class: "gn-grid" }),
      g("text", { x: x.at(tick), y: bottom + 15, "text-anchor": "middle", class: "gn-tick" }, number(tick)));
    layer.append(g("line", { x1: left, x2: left, y1: y.start, y2: y.end, class: "gn-axis" }));
    const largest = Math.max(1, ...rows.map((row) => row.rank));
    rows.forEach((row, index) => {
      const at = top + step * (index + 0.5);
      layer.append(g("text", { x: left - 6, y: at + 4, "text-anchor": "end", class: "gn-tick" }, row.name.length > 46 ? `…${row.name.slice(-45)}` : row.name));
      const line = g("g", { class: "gn-row", "data-name": row.name });
      if (row.size > 0) line.append(g("rect", { x: left, y: at - step * 0.3, width: Math.max(1, x.at(row.size) - left), height: step * 0.6, fill: row.limit !== null && row.size > row.limit ? COLOUR.vermilion : COLOUR.blue, "fill-opacity": 0.85 }),
        g("line", { x1: x.at(row.null_low), x2: x.at(row.null_high), y1: at, y2: at, stroke: COLOUR.grey, "stroke-width": 5 }), g("circle", { cx: x.at(row.null), cy: at, r: 2, fill: "currentColor" }));
      else line.append(g("text", { x: left + 8, y: at + 4, class: "gn-tick" }, row.moved ? "not measured" : "did not move"));
      line.append(g("rect", { x: 730, y: at - step * 0.3, width: (150 * row.rank) / largest, height: step * 0.6, fill: COLOUR.grey, "fill-opacity": 0.3 }));
      if (row.rank_used !== null) line.append(g("rect", { x: 730, y: at - step * 0.3, width: (150 * row.rank_used) / largest, height: step * 0.6, fill: COLOUR.green, "fill-opacity": 0.85 }),
        g("text", { x: 888, y: at + 4, class: "gn-tick" }, `${number(row.rank_used, 3)} of ${row.rank}`));
      line.addEventListener("mousemove", (event) => tip.show(event, [row.name, `${state.unit} ${number(row.size)}, ‖dW‖₂ ${number(row.norm)}`, `random adapter ${number(row.null)} [${number(row.null_low)}, ${number(row.null_high)}]`,
        `rank ${row.rank}, used ${number(row.rank_used)}; scale ${number(row.scale)}`, row.limit !== null ? `the matrix itself: σ₁ at ${number(row.limit)}` : ""].filter(Boolean)));
      line.addEventListener("mouseleave", () => tip.hide());
      layer.append(line);
    });
    if (state.is_relative) layer.append(g("line", { x1: x.at(1), x2: x.at(1), y1: top - 6, y2: bottom, stroke: COLOUR.vermilion, "stroke-dasharray": "4 3" }),
      g("text", { x: x.at(1), y: top - 9, "text-anchor": "middle" }, "σₖ"));
    svg.setAttribute("viewBox", `0 0 960 ${bottom + 24}`);
    svg.replaceChildren(layer);
  }
  return follow(model, draw);
}
export default { render };

// RunList: the runs of a dashboard; a name opens a run, ticked runs are compared.

const STATES = { training: "live", verifying: "live", done: "met", stopped: "notmet", failed: "bad", dead: "bad", unreadable: "bad" };

function render({ model, el }) {
  const { root, error, complain } = frame(el, "run-list");
  let ticked = null, state = {};
  const body = h("tbody");
  const compare = button("Compare the ticked runs", "Opens them side by side", () => go(state.rows.map((row) => row.name).filter((name) => ticked.has(name))));
  const address = (names) => `runs?${new URLSearchParams(names.map((name) => ["run", name]))}`;
  const go = (names) => { window.location.href = address(names); };
  root.append(h("div", { class: "gn-scroll", style: "max-height:15rem" }, h("table", {}, h("thead", {}, h("tr", {}, ...["", "run", "state", "step", "what", ""].map((label) => h("th", {}, label)))), body)),
    h("div", { class: "gn-bar", style: "margin-top:.4rem" }, compare), error);
  function draw() {
    state = model.get("state");
    if (!state.rows) return;
    complain(state.error);
    if (ticked === null) ticked = new Set(state.chosen);
    body.replaceChildren(...state.rows.map((row) => h("tr", { "data-run": row.name },
      h("td", {}, h("input", { type: "checkbox", checked: ticked.has(row.name), "aria-label": `compare ${row.name}`, onchange: (event) => { if (event.target.checked) ticked.add(row.name); else ticked.delete(row.name); refresh(); } })),
      h("td", { class: "gn-id" }, h("a", { href: address([row.name]), style: `color:inherit${state.chosen.includes(row.name) ? ";font-weight:600" : ""}` }, row.name)),
      h("td", {}, h("span", { class: `gn-chip gn-${STATES[row.state] || "unmeasured"}` }, h("span", { class: "gn-dot" }), row.state)),
      h("td", { class: "gn-num" }, `${whole(row.step)} / ${whole(row.horizon)}`), h("td", { class: "gn-id" }, row.what), h("td", { class: "gn-why gn-soft" }, row.message))));
    refresh();
  }
  function refresh() {
    const there = state.rows.filter((row) => ticked.has(row.name)).length;
    compare.disabled = there < 2;
    compare.textContent = there < 2 ? "Tick two or more runs to compare them" : `Compare ${there} runs`;
  }
  return follow(model, draw);
}
export default { render };

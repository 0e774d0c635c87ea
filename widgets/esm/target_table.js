// TargetTable: the matrices of a plan, the fifteen numbers, and what an override changes.

const LIMIT = 400;
const COLUMNS = [["name", "matrix", false], ["role", "role", false], ["layer", "layer", true], ["chosen", "trained", false],
  ["rank", "rank", true], ["budget", "budget R", true], ["parameters", "parameters", true], ["because", "why", false]];

function render({ model, el }) {
  const { root, error, complain } = frame(el, "target-table");
  let state = {}, sort = null, down = false, filter = "all", search = "", hidden = new Set(), tab = "matrices", limit = LIMIT, timer = 0;

  const name = h("span", { class: "gn-name" }), lead = h("span", { class: "gn-soft gn-grow" });
  const tabs = [["matrices", "Matrices"], ["fifteen", "The fifteen numbers"]].map(([key, label]) =>
    button(label, "", () => { tab = key; draw(); }, { "data-tab": key, role: "tab" }));
  const note = h("div", { class: "gn-note", role: "status" });
  const totals = h("div", { class: "gn-bar gn-totals" });
  const find = h("input", { class: "gn-input gn-grow", type: "search", placeholder: "search names and reasons", "aria-label": "Search",
    oninput: () => { search = find.value.toLowerCase(); limit = LIMIT; rows(); } });
  const which = choice("Show", [["all", "all matrices"], ["chosen", "trained"], ["skipped", "skipped"], ["changed", "changed by the override"]], "all",
    (value) => { filter = value; limit = LIMIT; rows(); });
  const roleChips = h("span", { class: "gn-bar" });
  const memory = h("input", { class: "gn-input", size: 9, placeholder: "none, or 2GB", "aria-label": "Memory budget", oninput: () => later() });
  const rule = h("span"), excluded = h("span", { class: "gn-bar" });
  const what = h("div", { class: "gn-bar gn-what-if" }, h("span", { class: "gn-strong" }, "What if"), h("label", {}, "memory budget ", memory), h("label", {}, "rank rule ", rule),
    h("span", {}, "leave out"), excluded, button("Back to the derived plan", "Drop every override", () => { memory.value = ""; ask({ memory_budget: "", rank_rule: "", exclude_roles: null }); }));
  const head = h("tr"), body = h("tbody"), count = h("div", { class: "gn-soft gn-count" });
  const table = h("div", { class: "gn-scroll" }, h("table", {}, h("thead", {}, head), body));
  const matrices = h("div", {}, what, note, totals, h("div", { class: "gn-bar" }, find, which, roleChips), table, count);
  const fifteen = h("div", { class: "gn-grid-of-cards" });
  root.append(h("div", { class: "gn-bar" }, name, lead, h("span", { role: "tablist", class: "gn-bar" }, tabs)), matrices, fifteen, error);

  function ask(change = {}) {
    clearTimeout(timer);
    const asked = { memory_budget: memory.value, rank_rule: rule.firstChild.value, exclude_roles: state.asked.exclude_roles, ...change };
    send(model, { kind: "what-if", ...asked });
  }
  function later() { clearTimeout(timer); timer = setTimeout(() => ask(), 600); }

  function draw() {
    state = model.get("state");
    if (!state.matrices) return;
    complain(state.error);
    name.textContent = state.title;
    lead.textContent = state.lead;
    for (const found of tabs) found.setAttribute("aria-pressed", String(found.dataset.tab === tab));
    matrices.style.display = tab === "matrices" ? "" : "none";
    fifteen.style.display = tab === "fifteen" ? "" : "none";
    if (!rule.firstChild) rule.append(choice("Rank rule", state.rules.map((found) => [found, found === "tail" ? "tail (derived)" : found]), state.asked.rank_rule, (value) => ask({ rank_rule: value })));
    rule.firstChild.value = state.asked.rank_rule;
    if (document.activeElement !== memory && root.getRootNode().activeElement !== memory) memory.value = state.asked.memory_budget;
    excluded.replaceChildren(...state.roles.filter((role) => !["embed", "head", "router", "other"].includes(role)).map((role) => {
      const out = state.asked.exclude_roles.includes(role);
      return h("label", { class: `gn-chip${out ? " gn-off" : ""}` }, h("input", { type: "checkbox", checked: out, "data-exclude": role, onchange: (event) =>
        ask({ exclude_roles: event.target.checked ? [...state.asked.exclude_roles, role] : state.asked.exclude_roles.filter((found) => found !== role) }) }), role);
    }));
    note.style.display = state.is_override ? "" : "none";
    note.replaceChildren(h("strong", {}, "Override. "), state.because, h("div", { class: "gn-soft" }, "The same on the command line: ", h("code", {}, `geonb plan … ${state.arguments.join(" ")}`)));
    const pair = (label, [before, after], shown) => h("span", { class: "gn-chip" }, `${label} `, before === after ? shown(after) : [h("span", { class: "gn-was" }, shown(before)), shown(after)]);
    const trained = state.matrices.filter((matrix) => matrix.chosen).length;
    const was = state.matrices.filter((matrix) => (matrix.was ? matrix.was.chosen : matrix.chosen)).length;
    totals.replaceChildren(pair("matrices", [was, trained], whole), pair("trained parameters", state.parameters, whole),
      pair("adapter memory", state.bytes, (value) => `${number(value / 1e6)} MB`));
    roleChips.replaceChildren(...state.roles.map((role) => h("span", { class: `gn-chip${hidden.has(role) ? " gn-off" : ""}`, role: "button", tabindex: 0, title: `Show or hide the role ${role}`,
      onclick: () => { if (!hidden.delete(role)) hidden.add(role); draw(); } }, role)));
    head.replaceChildren(...COLUMNS.map(([key, label, numeric]) => h("th", { class: numeric ? "gn-num" : "", "data-sort": key, title: `Sort by ${label}`,
      onclick: () => { if (sort === key) down = !down; else { sort = key; down = numeric; } draw(); } }, label, sort === key ? (down ? " ▾" : " ▴") : "")));
    rows();
    drawFifteen();
  }

  function rows() {
    let found = state.matrices.filter((matrix) => !hidden.has(matrix.role)
      && (filter === "all" || (filter === "changed" ? matrix.was : (filter === "chosen") === matrix.chosen))
      && (!search || `${matrix.name} ${matrix.because}`.toLowerCase().includes(search)));
    if (sort) {
      const value = (matrix) => (matrix[sort] === null ? -1 : matrix[sort]);
      found = [...found].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (down ? -1 : 1));
    }
    const changed = (matrix, key, shown) => (matrix.was && matrix.was[key] !== matrix[key] ? [h("span", { class: "gn-was" }, shown(matrix.was[key])), shown(matrix[key])] : shown(matrix[key]));
    const some = (value) => (value ? whole(value) : "–");
    body.replaceChildren(...found.slice(0, limit).map((matrix) => h("tr", { class: `${matrix.chosen ? "" : "gn-skipped"}${matrix.was ? " gn-changed" : ""}`, "data-name": matrix.name },
      h("td", { class: "gn-id", title: matrix.name }, matrix.name.replace(/\.weight$/, "")), h("td", {}, matrix.role), h("td", { class: "gn-num" }, matrix.layer === null ? "–" : matrix.layer),
      h("td", {}, changed(matrix, "chosen", (value) => (value ? "✓ trained" : "skipped"))), h("td", { class: "gn-num" }, changed(matrix, "rank", some)),
      h("td", { class: "gn-num" }, matrix.budget ? number(matrix.budget) : "–"), h("td", { class: "gn-num" }, changed(matrix, "parameters", some)),
      h("td", { class: "gn-why" }, matrix.because))));
    if (found.length > limit) body.append(h("tr", {}, h("td", { colspan: COLUMNS.length }, button(`show ${Math.min(LIMIT, found.length - limit)} more`, "", () => { limit += LIMIT; rows(); }))));
    count.textContent = `${whole(found.length)} of ${whole(state.matrices.length)} matrices`;
    root.dataset.rows = Math.min(found.length, limit);
  }

  function drawFifteen() {
    fifteen.replaceChildren(...state.derivations.map((found) => h("div", { class: "gn-card", "data-number": found.number },
      h("div", { class: "gn-soft" }, `${found.number}. instead of ${found.replaces}`), h("div", { class: "gn-big" }, found.value),
      h("div", { class: "gn-soft" }, found.unit), h("div", {}, h("code", {}, found.formula)),
      h("div", {}, h("span", { class: "gn-tag" }, found.evidence), " ", found.applied ? "" : h("span", { class: "gn-tag" }, "not applied")),
      h("p", {}, found.because), h("div", { class: "gn-soft" }, `documented: ${found.documented} [${found.documented_evidence}]`), h("div", { class: "gn-soft" }, found.source))));
  }
  const leave = follow(model, draw);
  return () => { clearTimeout(timer); leave(); };
}
export default { render };

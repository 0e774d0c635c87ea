// LedgerView: claims by paper or verdict; published hollow, measured full with its interval, the rule's threshold dashed.

const W = 250, H = 30, SIDE = 12;

function render({ model, el }) {
  const { root, error, complain } = frame(el, "ledger");
  let state = {}, paper = "", group = "paper", search = "", decision = null, opened = null, told = "";
  const name = h("span", { class: "gn-name" }, "Ledger of claims"), lead = h("span", { class: "gn-soft gn-grow" });
  const verdicts = h("div", { class: "gn-bar", role: "group", "aria-label": "Verdict of the run" });
  const papers = h("span"), list = h("div"), count = h("div", { class: "gn-soft gn-count", role: "status" });
  const find = h("input", { class: "gn-input gn-grow", type: "search", placeholder: "search claims, rules and reasons", "aria-label": "Search",
    oninput: () => { search = find.value.toLowerCase(); rows(); } });
  const by = choice("Group by", [["paper", "by paper"], ["decision", "by verdict of the run"], ["registered", "by verdict of the register"]], "paper", (value) => { group = value; rows(); });
  const key = h("div", { class: "gn-bar gn-soft" }, [["published", "published"], ["measured", "measured here, with its interval"], ["threshold", "threshold of the rule"]]
    .map(([kind, text]) => h("span", { class: "gn-key" }, mark(kind), text)));
  root.append(h("div", { class: "gn-bar" }, name, lead), verdicts, h("div", { class: "gn-bar" }, find, papers, by), key, count, list, error);

  function draw() {
    state = model.get("state");
    if (!state.rows) return;
    complain(state.error);
    lead.textContent = `${state.title}: ${state.summary}`;
    // what Python shows counts where it is another than last time: a redraw must not undo what was clicked since
    const shown = JSON.stringify([state.opened, state.decision]);
    if (shown !== told) { told = shown; opened = state.opened; decision = state.decision; }
    if (!papers.firstChild || papers.dataset.of !== state.papers.join("\n")) {
      papers.dataset.of = state.papers.join("\n");
      papers.replaceChildren(choice("Paper", [["", "all papers"], ...state.papers.map((found) => [found, found])], paper, (value) => { paper = value; rows(); }));
    }
    rows();
  }

  function say() { told = JSON.stringify([opened, decision]); send(model, { kind: "show", opened, decision }); }

  function chips() {
    verdicts.replaceChildren(...[["", "", state.rows.length], ...state.decisions.filter(([found]) => state.counts[found]).map(([found, colour]) => [found, colour, state.counts[found]])]
      .map(([found, colour, number]) => button("", found ? `Only the claims whose run says ${found}` : "Every verdict", () => { decision = decision === found ? "" : found; say(); rows(); focusOn(`[data-decision="${found}"]`); },
        { "aria-pressed": String(decision === found), "data-decision": found })));
    [...verdicts.children].forEach((chip, index) => {
      const found = chip.dataset.decision;
      chip.append(found ? badge(found) : "all", ` ${index ? state.counts[found] : state.rows.length}`);
    });
  }

  function focusOn(selector) { root.querySelector(selector)?.focus(); }
  function badge(decided) {
    const found = state.decisions.find(([one]) => one === decided);
    return h("span", { class: "gn-verdict", style: `border-left:.7rem solid ${found ? found[1] : COLOUR.grey}` }, decided);
  }
  const words = (row) => [row.claim, row.paper, row.statement, row.rule, row.because, row.problem, row.published, row.registered, row.decision, ...row.controls].join(" ").toLowerCase();

  function rows() {
    chips();
    const found = state.rows.filter((row) => (!decision || row.decision === decision) && (!paper || row.paper === paper) && (!search || words(row).includes(search)));
    const order = group === "paper" ? state.papers : state.decisions.map(([one]) => one);
    list.replaceChildren(...order.flatMap((one) => {
      const own = found.filter((row) => row[group] === one);
      return own.length ? [h("h3", { class: "gn-group" }, one, h("span", { class: "gn-soft" }, ` ${own.length}`)), ...own.map(entry)] : [];
    }));
    count.textContent = `${found.length} of ${state.rows.length} claims`;
  }

  function entry(row) {
    const is = row.claim === opened;
    const id = `gn-claim-${state.rows.indexOf(row)}`;
    const head = h("button", { type: "button", class: "gn-claim-head", "aria-expanded": String(is), "aria-controls": id, "data-claim": row.claim,
      onclick: () => { opened = is ? "" : row.claim; say(); rows(); root.querySelector(`[aria-controls="${id}"]`)?.focus(); } },
      h("span", { class: "gn-claim-words" }, h("span", {}, badge(row.decision), " · ", h("span", { class: "gn-strong" }, row.claim), row.registered === row.decision ? null : h("span", { class: "gn-soft" }, ` · register: ${row.registered}`), row.passed === false ? h("span", { class: "gn-failed" }, " run failed") : null),
        h("span", { class: "gn-soft" }, row.statement)),
      h("span", { class: "gn-claim-plots" }, row.pairs.slice(0, is ? 99 : 2).map((pair) => plot(pair))));
    return h("div", { class: `gn-claim${is ? " gn-open" : ""}` }, head, h("div", { id, class: "gn-claim-body", hidden: !is }, is ? details(row) : null));
  }

  function details(row) {
    const line = (label, ...text) => h("p", {}, h("span", { class: "gn-strong" }, `${label} `), ...text);
    const signs = { met: "✓", "not met": "✗", undecided: "–" };
    return [
      line("Published as", row.published, "; register: ", badge(row.registered), "; this run: ", badge(row.decision), row.run ? ` (${row.run}${row.finished ? `, ${row.finished}` : ""})` : ""),
      row.because ? line("Because", row.because) : null,
      row.problem ? h("p", { class: "gn-failed" }, row.problem) : null,
      row.rule ? line("Rule.", row.rule) : null,
      row.controls.length ? line("Controls.", row.controls.join("; ")) : null,
      ...row.pairs.map((pair) => line("Figures.", [pair.told[0] && `published ${pair.told[0]}`, pair.told[1]].filter(Boolean).join("; "))),
      row.checks.length ? h("ul", { class: "gn-checks" }, row.checks.map((check) => h("li", {}, `${signs[check.met]} ${check.sentence} `, h("span", { class: "gn-soft" }, `[${check.met}; ${check.decides}]`)))) : h("p", { class: "gn-soft" }, "No check was made yet."),
      row.link ? h("p", {}, h("a", { href: row.link, style: "color:inherit", class: "gn-notebook" }, `Open the notebook ${row.notebook}`)) : row.notebook ? line("Notebook", h("code", {}, row.notebook)) : null,
    ];
  }

  function plot(pair) {
    const { published, measured, threshold } = pair;
    const text = pair.told.map((one, index) => one && `${index ? "measured" : "published"} ${one}`).filter(Boolean).join("; ");
    const svg = g("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": text, class: "gn-pair" }, g("title", {}, text));
    const values = [...(published || []), ...(measured || []), ...(threshold === null ? [] : [threshold])];
    if (!published && !measured) { svg.append(g("text", { x: W / 2, y: 14, "text-anchor": "middle", class: "gn-tick" }, "not measured")); return svg; }
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const log = low > 0 && high / low >= 1000;
    if (log) [low, high] = [low / 1.6, high * 1.6];
    else { const pad = (high - low) * 0.14 || Math.abs(low) * 0.1 || 1; [low, high] = [low - pad, high + pad]; }
    const x = new Scale(low, high, SIDE, W - SIDE, log);
    svg.append(g("line", { x1: SIDE, x2: W - SIDE, y1: 11, y2: 11, class: "gn-axis" }));
    for (const [value, anchor] of [[low, "start"], [high, "end"]])
      svg.append(g("text", { x: x.at(value), y: 28, "text-anchor": anchor, class: "gn-tick" }, number(value, 2)));
    if (threshold !== null) svg.append(g("line", { x1: x.at(threshold), x2: x.at(threshold), y1: 1, y2: 21, stroke: COLOUR.vermilion, "stroke-width": 1.8, "stroke-dasharray": "3 2", "data-mark": "threshold" }));
    for (const [kind, found] of [["published", published], ["measured", measured]]) {
      if (!found) continue;
      const full = kind === "measured";
      if (found[2] > found[1]) svg.append(g("line", { x1: x.at(found[1]), x2: x.at(found[2]), y1: full ? 11 : 15, y2: full ? 11 : 15, stroke: full ? COLOUR.blue : COLOUR.grey, "stroke-width": 3, "data-mark": `${kind}-interval` }));
      svg.append(g("circle", { cx: x.at(found[0]), cy: 11, r: full ? 4 : 6, fill: full ? COLOUR.blue : "none", stroke: full ? COLOUR.blue : COLOUR.grey, "stroke-width": 1.6, "data-mark": kind }));
    }
    return svg;
  }

  function mark(kind) {
    const shape = kind === "threshold" ? g("line", { x1: 8, x2: 8, y1: 0, y2: 16, stroke: COLOUR.vermilion, "stroke-width": 1.8, "stroke-dasharray": "3 2" })
      : g("circle", { cx: 8, cy: 8, r: kind === "published" ? 6 : 4, fill: kind === "published" ? "none" : COLOUR.blue, stroke: kind === "published" ? COLOUR.grey : COLOUR.blue, "stroke-width": 1.6 });
    return g("svg", { viewBox: "0 0 16 16", style: "width:16px;flex:none", "aria-hidden": "true" }, shape);
  }

  return follow(model, draw);
}
export default { render };

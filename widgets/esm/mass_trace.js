// MassTrace: bounds, losses, gap, noise, budgets and the certificate of a run, live or replayed.

const LINES = [["ceiling", "eta_ceiling", COLOUR.vermilion], ["sps", "eta_sps", COLOUR.purple], ["weyl", "eta_weyl", COLOUR.sky]];
const BINDS = ["ceiling", "sps", "weyl", "none"];
const BIND_COLOUR = [COLOUR.vermilion, COLOUR.purple, COLOUR.sky, COLOUR.grey];
const PHASES = { training: ["live", "training"], verifying: ["live", "verifying"], done: ["met", "done"], planned: ["unmeasured", "planned"],
  stopped: ["notmet", "stopped"], failed: ["bad", "failed"], dead: ["bad", "dead"], gone: ["bad", "gone"], events: ["met", "recorded"] };
const LEFT = 72, RIGHT = 946, WIDTH = 960;

function render({ model, el }) {
  const { root, error, complain } = frame(el, "mass-trace");
  const tip = hint(root);
  let cursor = null, playing = 0, data = { meta: {} }, state = {};

  const name = h("span", { class: "gn-name" });
  const chip = h("span", { class: "gn-chip" });
  const facts = h("span", { class: "gn-soft gn-grow" });
  const stop = button("■ Stop", "Ask the run to stop at its next step, with a checkpoint", () => send(model, { kind: "stop" }), { class: "gn-button gn-stop" });
  const reset = button("Whole run", "Show all steps again (double click does it as well)", () => send(model, { kind: "window", low: null, high: null }));
  const bar = h("div");
  const slider = h("input", { type: "range", class: "gn-range", "aria-label": "Scrub through the steps", min: 0, max: 1000, value: 1000,
    oninput: () => { halt(); cursor = slider.value >= 1000 ? null : fromShare(slider.value / 1000); draw(); } });
  const play = button("▶ Replay", "Play the run from its first step", () => (playing ? halt() : replay()));
  const readout = h("div", { class: "gn-soft gn-readout", "aria-live": "off" });
  const lights = h("div", { class: "gn-bar gn-lights" });
  const message = h("div", { class: "gn-soft" });
  const gates = h("div", { class: "gn-bar gn-gates" });
  const samples = h("details", { class: "gn-samples" });
  const picture = g("svg", { role: "img", "aria-label": "Trace of a training run" });
  root.append(h("div", { class: "gn-bar" }, name, chip, facts, stop), h("div", { class: "gn-progress" }, bar),
    h("div", { class: "gn-bar" }, play, slider, reset), readout, lights, gates, picture, samples, message, error);

  const range = () => {
    if (state.window) return state.window;
    return [0, Math.max(1, playing || cursor !== null || !state.can_stop ? state.step : state.step)];
  };
  const fromShare = (share) => range()[0] + share * (range()[1] - range()[0]);

  function halt() { cancelAnimationFrame(playing); playing = 0; play.textContent = "▶ Replay"; }
  function replay() {
    const [low, high] = range();
    const began = performance.now(), lasts = 8000;
    play.textContent = "❚❚ Pause";
    const tick = (now) => {
      const share = (now - began) / lasts;
      if (share >= 1) { cursor = null; halt(); draw(); return; }
      cursor = low + share * (high - low);
      draw();
      playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  }

  function rowAt(step) {
    const steps = data.step || [];
    let [low, high] = [0, steps.length - 1];
    while (low < high) { const middle = (low + high + 1) >> 1; if (steps[middle] <= step) low = middle; else high = middle - 1; }
    return low;
  }
  const evaluationAt = (step) => state.evaluations.filter((event) => event.step <= step).at(-1);

  function draw() {
    state = model.get("state");
    const block = model.get("data");
    if (block !== draw.block) { draw.block = block; data = unpack(block); }
    if (!state.evaluations) return;
    complain(state.error);
    header();
    const until = cursor === null ? Infinity : cursor;
    const x = new Scale(...range(), LEFT, RIGHT);
    const layer = g("g");
    let top = 30;
    const shown = playing ? visible(until) : data;
    top = bounds(layer, shown, x, top);
    top = losses(layer, shown, x, top + 46, until);
    top = gapAndNoise(layer, shown, x, top + 46);
    top = budget(layer, x, top + 40, playing ? until : Infinity);
    if (cursor !== null) layer.append(g("line", { class: "gn-cursor", x1: x.at(cursor), x2: x.at(cursor), y1: 30, y2: 436 }));
    picture.setAttribute("viewBox", `0 0 ${WIDTH} ${top + 8}`);
    picture.replaceChildren(layer);
    picture.scale = x;
    readouts(until);
    root.dataset.steps = data.meta.total || 0;
    root.dataset.drawn = (data.step || []).length;
  }
  function visible(until) {
    const end = (data.step || []).findIndex((step) => step > until);
    if (end < 0) return data;
    const cut = { meta: data.meta };
    for (const key of ["step", "loss", "eta_ceiling", "eta_sps", "eta_weyl", "eta_step", "gap", "noise_scale"]) cut[key] = data[key].subarray(0, end);
    return { ...data, ...cut };
  }

  function header() {
    const [kind, label] = PHASES[state.phase] || ["unmeasured", state.phase];
    name.textContent = state.title;
    chip.className = `gn-chip gn-${kind}`;
    chip.replaceChildren(h("span", { class: "gn-dot" }), state.stopping ? "stopping" : label);
    const parts = [`step ${whole(state.step)} of ${whole(state.horizon)}`];
    if (state.pace) parts.push(`${number(state.pace, 2)} s a step`);
    if (state.left) parts.push(`${duration(state.left)} left`);
    if (data.meta.thinned) parts.push("extremes kept, points thinned");
    if (state.unreadable) parts.push(`${state.unreadable} damaged lines left out`);
    facts.textContent = parts.join(" · ");
    bar.style.width = `${state.horizon ? (100 * state.step) / state.horizon : 0}%`;
    stop.style.display = state.can_stop ? "" : "none";
    stop.disabled = state.stopping;
    stop.textContent = state.stopping ? "stopping at the next step …" : "■ Stop";
    reset.style.display = state.window ? "" : "none";
    message.textContent = state.message || "";
    if (cursor === null) slider.value = 1000;
    else slider.value = Math.round((1000 * (cursor - range()[0])) / (range()[1] - range()[0]));
  }

  function bounds(layer, shown, x, top) {
    const series = ["eta_ceiling", "eta_sps", "eta_weyl", "eta_step"].map((key) => data[key] || []);
    const found = extent(series, true);
    layer.append(g("text", { x: LEFT, y: top - 12, class: "gn-title" }, state.curriculum ? "Step size" : "Step size and its three bounds"));
    legend(layer, LEFT + 230, top - 12, [["step taken", COLOUR.blue, "5 3"], ...(state.curriculum ? [] : LINES.map(([label, , colour]) => [label, colour]))]);
    if (!found) { layer.append(g("text", { x: LEFT, y: top + 60 }, "no step yet")); return top + 190; }
    const y = new Scale(found[0] / 1.3, found[1] * 1.3, top + 160, top, true);
    axes(layer, x, y, { yLabel: (state.unit || "").slice(0, 34) });
    for (const [label, key, colour] of LINES)
      layer.append(line(shown.step, shown[key], x, y, colour, { "stroke-width": 1.4, "data-series": label }));
    layer.append(line(shown.step, shown.eta_step, x, y, COLOUR.blue, { "stroke-width": 2.6, "stroke-dasharray": "5 3", "data-series": "step" }));
    const ribbon = g("g", { class: "gn-ribbon" });
    const [steps, codes] = [data.ribbon_step, data.ribbon];
    for (let first = 0; first < codes.length;) {
      let last = first;
      while (last + 1 < codes.length && codes[last + 1] === codes[first]) last++;
      const from = x.at(steps[first] - 1), to = last + 1 < codes.length ? x.at(steps[last + 1] - 1) : x.at(state.window ? x.high : state.step);
      ribbon.append(g("rect", { x: from, y: top + 184, width: Math.max(0.5, to - from), height: 9, fill: BIND_COLOUR[codes[first]], "data-binds": BINDS[codes[first]] }));
      first = last + 1;
    }
    layer.append(ribbon, g("text", { x: LEFT - 6, y: top + 192, "text-anchor": "end", class: "gn-tick" }, "binds"));
    return top + 193;
  }

  function losses(layer, shown, x, top, until) {
    const evaluations = state.evaluations.filter((event) => !playing || event.step <= until);
    const inside = state.evaluations.filter((event) => event.step >= x.low && event.step <= x.high);
    const pick = (events, key) => events.map((event) => (typeof event[key] === "number" ? event[key] : NaN));
    const kept = state.evaluations.some((event) => event.retention_loss !== null);
    layer.append(g("text", { x: LEFT, y: top - 10, class: "gn-title" }, "Loss"));
    legend(layer, LEFT + 60, top - 10, [["training batch", COLOUR.grey], ["validation", COLOUR.blue], ...(kept ? [["held-out base text", COLOUR.orange]] : [])]);
    const found = extent([data.loss || [], pick(inside, "loss"), pick(inside, "retention_loss")]);
    if (!found) return top + 150;
    const margin = 0.05 * (found[1] - found[0]);
    const y = new Scale(found[0] - margin, found[1] + margin, top + 140, top);
    axes(layer, x, y, { xLabel: "step", yLabel: "nats per token" });
    for (const [step, name] of state.phases || []) {
      if (step > until || step < x.low) continue;
      layer.append(g("line", { x1: x.at(step), x2: x.at(step), y1: y.end, y2: y.start, stroke: COLOUR.green, "stroke-dasharray": "3 3", class: "gn-phase" }),
        g("text", { x: x.at(step) + 4, y: Math.min(y.start, y.end) + 12, "font-size": 11, "data-phase": name }, name));
    }
    layer.append(line(shown.step || [], shown.loss || [], x, y, COLOUR.grey, { "stroke-width": 1, "data-series": "loss" }));
    for (const [key, colour] of [["loss", COLOUR.blue], ["retention_loss", COLOUR.orange]]) {
      const drawn = evaluations.filter((event) => event.step >= x.low && event.step <= x.high && typeof event[key] === "number");
      layer.append(line(drawn.map((event) => event.step), drawn.map((event) => event[key]), x, y, colour, { "stroke-width": 2, "data-series": key === "loss" ? "validation" : "retention" }));
      for (const event of drawn)
        layer.append(g("circle", { cx: x.at(event.step), cy: y.at(event[key]), r: event.best && key === "loss" ? 4.5 : 3, fill: colour, class: "gn-evaluation" }));
    }
    return top + 158;
  }

  function gapAndNoise(layer, shown, x, top) {
    if (state.curriculum) return top; // nothing derives a stop from them in such a run
    const middle = (LEFT + RIGHT) / 2;
    for (const [key, title, colour, start, end] of [["gap", "Duality gap (nats)", COLOUR.green, LEFT, middle - 40],
      ["noise_scale", "Noise scale (examples)", COLOUR.purple, middle + 40, RIGHT]]) {
      layer.append(g("text", { x: start, y: top - 8, class: "gn-title" }, title));
      const found = extent([data[key] || []], true);
      if (!found) { layer.append(g("text", { x: start, y: top + 40, class: "gn-tick" }, "not measured yet")); continue; }
      const own = new Scale(x.low, x.high, start, end);
      const y = new Scale(found[0] / 1.3, found[1] * 1.3, top + 74, top, true);
      axes(layer, own, y, { xLabel: "step", count: 3 });
      const there = Array.from(shown[key].keys()).filter((i) => shown[key][i] > 0);
      layer.append(line(there.map((i) => shown.step[i]), there.map((i) => shown[key][i]), own, y, colour, { "data-series": key }));
    }
    return top + 106;
  }

  function budget(layer, x, top, until) {
    const columns = data.meta.columns || 0, rows = state.layers.length;
    layer.append(g("text", { x: LEFT, y: top - 8, class: "gn-title" }, "Budget used per matrix, ‖dW‖₂ / R"));
    for (let i = 0; i < 10; i++) layer.append(g("rect", { x: LEFT + 270 + 14 * i, y: top - 17, width: 14, height: 9, fill: heat(i / 9) }));
    layer.append(g("text", { x: LEFT + 264, y: top - 8, "text-anchor": "end", class: "gn-tick" }, "0"), g("text", { x: LEFT + 416, y: top - 8, class: "gn-tick" }, "1"));
    if (!columns || !rows) { layer.append(g("text", { x: LEFT, y: top + 18, class: "gn-tick" }, "not measured yet")); return top + 30; }
    const height = Math.max(60, Math.min(240, rows * 8));
    const strip = g("g", { class: "gn-strip", "data-rows": rows, "data-columns": columns });
    // one canvas pixel a cell, enlarged: 500 matrices cost as much as five
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [1, rows];
    const context = canvas.getContext("2d");
    const before = (column) => (column ? x.at(data.strip_step[column - 1]) : x.at(Math.max(x.low, 0)));
    for (let column = 0; column < columns; column++) {
      if (data.strip_step[column] > until) break;
      if (!budget.cache || budget.block !== draw.block) { budget.cache = []; budget.block = draw.block; }
      if (!budget.cache[column]) {
        const pixels = context.createImageData(1, rows);
        for (let row = 0; row < rows; row++) {
          const [red, green, blue] = shades(data.strip[column * rows + row] / 255);
          pixels.data.set([red, green, blue, 255], 4 * row);
        }
        context.putImageData(pixels, 0, 0);
        budget.cache[column] = canvas.toDataURL();
      }
      const from = before(column);
      strip.append(g("image", { x: from, y: top, width: Math.max(0.6, x.at(data.strip_step[column]) - from + 1), height, href: budget.cache[column],
        preserveAspectRatio: "none", style: "image-rendering:pixelated" }));
    }
    layer.append(strip, g("text", { x: LEFT - 6, y: top + 9, "text-anchor": "end", class: "gn-tick" }, "first"),
      g("text", { x: LEFT - 6, y: top + height, "text-anchor": "end", class: "gn-tick" }, "last"));
    picture.strip = { top, height, rows, columns };
    return top + height + 4;
  }

  function readouts(until) {
    const evaluation = evaluationAt(until) || { conditions: [] };
    const latest = state.evaluations.at(-1) || { conditions: [] };
    const known = (latest.conditions.length ? latest : evaluation).conditions;
    lights.style.display = state.curriculum ? "none" : "";
    lights.replaceChildren(h("span", { class: "gn-soft" }, "Certificate"), ...(known.length ? known.map((template) => {
      const condition = evaluation.conditions.find((item) => item.name === template.name) || { ...template, status: "unmeasured", because: "not measured at this step" };
      return h("span", { class: `gn-chip gn-light gn-${condition.status.replace(" ", "")}`, title: condition.because, "data-status": condition.status },
        h("span", { class: "gn-dot" }), `${condition.name}: ${condition.status}`);
    }) : [h("span", { class: "gn-chip gn-light gn-unmeasured", "data-status": "unmeasured" }, h("span", { class: "gn-dot" }), "unmeasured until the first evaluation")]));
    const verified = state.verification;
    gates.replaceChildren(...(verified ? [h("span", { class: "gn-soft" }, `Verification ${verified.verdict}`), ...verified.gates.map(([label, status, required, because]) =>
      h("span", { class: `gn-chip gn-gate gn-${{ passed: "met", failed: required ? "bad" : "notmet" }[status] || "unmeasured"}`, title: `${because}${required ? "" : " (reported, not required)"}`, "data-status": status }, h("span", { class: "gn-dot" }), label))] : []));
    const written = verified ? verified.samples : [];
    const shown = JSON.stringify(written);
    if (samples.shown !== shown) { // built once, so that an open one stays open
      samples.shown = shown;
      samples.style.display = written.length ? "" : "none";
      samples.replaceChildren(h("summary", {}, "What base and adapter write after the same openings"), h("div", { class: "gn-scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...["opening", "base model", "adapter"].map((label) => h("th", {}, label)))),
        h("tbody", {}, ...written.map((row) => h("tr", {}, ...row.map((text) => h("td", { class: "gn-why gn-text" }, text))))))));
    }
    if (!(data.step || []).length) { readout.textContent = "waiting for the first step …"; return; }
    const row = rowAt(until);
    const binds = BINDS[data.ribbon[Math.min(data.ribbon.length - 1, Math.max(0, [...data.ribbon_step].findLastIndex((step) => step <= data.step[row])))]];
    const parts = [`step ${whole(data.step[row])}`, `loss ${number(data.loss[row], 4)}`, `step size ${number(data.eta_step[row])} (${binds} binds)`];
    if (Number.isFinite(data.gap[row])) parts.push(`gap ${number(data.gap[row])} nats`);
    if (evaluation.loss !== undefined) parts.push(`validation ${number(evaluation.loss, 4)}${evaluation.delta_interval ? `, ${number(evaluation.delta)} [${evaluation.delta_interval.map((v) => number(v)).join(", ")}] against the start` : ""}`);
    readout.textContent = parts.join(" · ");
  }

  // hover, drag to zoom, double click to see everything
  let dragged = null;
  const band = g("rect", { y: 30, height: 406, fill: "currentColor", "fill-opacity": 0.1, "pointer-events": "none" });
  picture.addEventListener("mousedown", (event) => { const [px, py] = place(picture, event); if (px >= LEFT && py < 440) dragged = px; });
  picture.addEventListener("mousemove", (event) => {
    const x = picture.scale;
    if (!x || !(data.step || []).length) return;
    const [px, py] = place(picture, event);
    if (dragged !== null) {
      band.setAttribute("x", Math.min(px, dragged)); band.setAttribute("width", Math.abs(px - dragged));
      picture.append(band);
      return;
    }
    if (px < LEFT || px > RIGHT) return tip.hide();
    const strip = picture.strip;
    if (strip && py >= strip.top && py <= strip.top + strip.height) {
      const row = Math.min(strip.rows - 1, Math.floor(((py - strip.top) / strip.height) * strip.rows));
      let column = 0;
      while (column + 1 < strip.columns && x.at(data.strip_step[column]) < px) column++;
      return tip.show(event, [state.layers[row], `step ${whole(data.strip_step[column])}: ${percent(data.strip[column * strip.rows + row] / 255)} of its budget`,
        `now ‖dW‖₂ ${number(data.layer_norm[row])}, ${number(data.layer_over_sigma_k[row])} σₖ`]);
    }
    if (py > 440) return tip.hide();
    const row = rowAt(x.invert(px));
    tip.show(event, [`step ${whole(data.step[row])}`, `loss ${number(data.loss[row], 4)}`, `step ${number(data.eta_step[row])}`,
      `ceiling ${number(data.eta_ceiling[row])} · sps ${number(data.eta_sps[row])} · weyl ${number(data.eta_weyl[row])}`]);
  });
  picture.addEventListener("mouseleave", () => { tip.hide(); dragged = null; band.remove(); });
  picture.addEventListener("mouseup", (event) => {
    const from = dragged, [px] = place(picture, event);
    dragged = null; band.remove();
    if (from === null) return;
    const x = picture.scale;
    if (Math.abs(px - from) > 8) {
      halt();
      send(model, { kind: "window", low: Math.max(0, x.invert(Math.min(px, from))), high: x.invert(Math.max(px, from)) });
    } else { halt(); cursor = x.invert(px); draw(); }
  });
  picture.addEventListener("dblclick", () => { cursor = null; send(model, { kind: "window", low: null, high: null }); });

  const leave = follow(model, draw);
  return () => { halt(); leave(); };
}
export default { render };

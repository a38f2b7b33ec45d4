// The miss-ratio curve: how many of the requests so far a cache of another size would have had to load for.

import { byId, bytes, el, percent, setText, svg } from "./dom.js";

const left = 48, top = 14, bottom = 184, height = 216; // of the plot, in CSS pixels

export function curve(stats) {
  if (!stats) return;
  const by = document.querySelector("input[name=curve-by]:checked").value;
  const { requests, by_models: byModels, by_bytes: byBytes } = stats.miss_ratio_curve;
  const budget = stats.pools.reduce((sum, p) => sum + p.budget_bytes, 0);
  const points = by === "models"
    ? byModels.map((hit, i) => ({ x: i + 1, miss: 1 - hit, label: `${i + 1}${i === byModels.length - 1 ? " or more" : ""}` }))
    : byBytes.map((p) => ({ x: p.bytes, miss: 1 - p.hit_rate, label: bytes(p.bytes) }));
  const now = by === "models" ? { x: stats.max_cache_size, label: `now: ${stats.max_cache_size}` } : { x: budget, label: `now: ${bytes(budget)}` };
  const empty = requests === 0 || points.length === 0;
  byId("curve").toggleAttribute("hidden", empty);
  setText(byId("curve-caption"), empty ? "It appears with the first requests for models." : caption(points, requests, by));
  table(points, by);
  if (!empty) draw(points, now);
}

function caption(points, requests, by) {
  const [first, last] = [points[0], points.at(-1)];
  const size = (p) => (by === "models" ? `${p.label} model${p.label === "1" ? "" : "s"}` : p.label);
  return `Of ${requests} requests, ${percent(first.miss)} would have missed with ${size(first)}` +
    (first === last ? "." : ` and ${percent(last.miss)} with ${size(last)}.`);
}

function table(points, by) {
  byId("curve-table").replaceChildren(
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, by === "models" ? "Models" : "Memory"), el("th", { scope: "col" }, "Missed"))),
    el("tbody", {}, ...points.map((p) => el("tr", {}, el("th", { scope: "row" }, p.label), el("td", {}, percent(p.miss))))));
}

function draw(points, now) {
  const width = byId("curve").parentElement.clientWidth; // drawn at its size, so that the letters keep theirs
  const right = width - 8;
  byId("curve").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const widest = Math.max(points.at(-1).x * 1.08, Math.min(now.x, points.at(-1).x * 2));
  const x = (value) => left + (value / widest) * (right - left);
  const y = (miss) => bottom - miss * (bottom - top);
  // Between two sizes nothing changes: a step. Below the first every request misses.
  let line = `M${x(0)} ${y(1)}`;
  for (const p of points) line += `H${x(p.x).toFixed(1)}V${y(p.miss).toFixed(1)}`;
  line += `H${right}`;
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    parts.push(svg("line", { class: "grid", x1: left, x2: right, y1: y(share), y2: y(share) }),
      svg("text", { x: left - 8, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  let lastLabel = -Infinity;
  for (const p of points) {
    if (x(p.x) - lastLabel < 64) continue;
    lastLabel = x(p.x);
    parts.push(svg("text", { x: lastLabel, y: bottom + 22, "text-anchor": "middle" }, p.label));
  }
  parts.push(svg("path", { class: "area", d: `${line}V${bottom}H${left}Z` }), svg("path", { class: "line", d: line }));
  for (const p of points) parts.push(svg("circle", { class: "point", cx: x(p.x), cy: y(p.miss), r: 3.5 }));
  if (now.x > 0 && now.x <= widest) {
    const end = x(now.x) > (left + right) / 2;
    parts.push(svg("line", { class: "now", x1: x(now.x), x2: x(now.x), y1: top, y2: bottom }),
      svg("text", { class: "now-label", x: x(now.x) + (end ? -6 : 6), y: top + 10, "text-anchor": end ? "end" : "start" }, now.label));
  }
  byId("curve").replaceChildren(...parts);
}

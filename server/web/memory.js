// The ledger of each memory as a bar: booked, reserved and unreturned bytes within the budget.

import { byId, bytes, el, seconds, setText } from "./dom.js";

const parts = [
  ["booked", "held by models and sessions"],
  ["reserved", "reserved for loads"],
  ["unreturned", "freed, not yet back"],
];
const pressures = { none: "no pressure", high: "memory is short", critical: "memory is critically short" };

export function memory(stats) {
  const box = byId("memory");
  for (const [i, pool] of stats.pools.entries()) draw(box.children[i] ?? box.appendChild(bar()), pool);
  while (box.children.length > stats.pools.length) box.lastChild.remove();
  const notes = [
    ...stats.components.filter((c) => c.holders > 1).map((c) => `${bytes(c.bytes)} are shared by ${c.holders} models and held once.`),
    ...stats.unreturned.map((u) => `${u.model} was freed ${seconds(u.for_s)} ago and ${bytes(u.bytes)} of it are not back.`),
    ...stats.failed.map((f) => `${f.model} failed to load and rests for ${seconds(f.retry_after_s)}: ${f.error}`),
  ];
  const list = byId("memory-notes");
  list.hidden = notes.length === 0;
  list.replaceChildren(...notes.map((note) => el("li", {}, note)));
}

function bar() {
  return el("article", { class: "pool" },
    el("div", { class: "heading" }, el("h3"), el("p", { class: "chip" })),
    el("div", { class: "bar", role: "img" }, ...parts.map(([name]) => el("span", { "data-part": name }))),
    el("ul", { class: "legend" }, ...[...parts, ["budget", "budget"]].map(([name, text]) =>
      el("li", { "data-part": name }, el("span", { class: "number" }), ` ${text}`))),
    el("p", { class: "hint" }));
}

function draw(node, pool) {
  const taken = parts.reduce((sum, [name]) => sum + pool[`${name}_bytes`], 0);
  const whole = pool.budget_bytes || taken || 1;
  const chip = node.querySelector(".chip");
  setText(node.querySelector("h3"), pool.pool);
  const lost = pool.state === "lost";
  setText(chip, lost ? "lost" : (pressures[pool.pressure] ?? pool.pressure));
  chip.dataset.state = lost ? "critical" : pool.pressure;
  for (const [name] of parts) {
    node.querySelector(`.bar [data-part=${name}]`).style.width = `${(100 * pool[`${name}_bytes`]) / whole}%`;
    setText(node.querySelector(`.legend [data-part=${name}] .number`), bytes(pool[`${name}_bytes`]));
  }
  setText(node.querySelector(".legend [data-part=budget] .number"), pool.budget_bytes ? bytes(pool.budget_bytes) : "no");
  node.querySelector(".bar").setAttribute("aria-label",
    pool.budget_bytes ? `${pool.pool}: ${Math.round((100 * taken) / whole)} % of the budget is taken` : `${pool.pool}: ${bytes(taken)} are taken, without a budget`);
  const hint = node.querySelector(".hint");
  const why = lost ? `Not used again before the server is started again: ${pool.lost}` : pool.refusing ? `Takes no loads: ${pool.refusing}` : "";
  setText(hint, why);
  hint.hidden = !why;
}

// What the cache holds, one card for each model. Cards are kept from look to look, so that the keyboard's focus stays.

import { path, request } from "./api.js";
import { byId, bytes, describe, el, seconds, setText } from "./dom.js";

const states = {
  reserving: "waits for room", loading: "loading", ready: "idle", leased: "in use",
  draining: "goes at its last release", freeing: "being freed", absent: "not loaded",
};

export class Models {
  #cards = new Map(); // by model id
  #actions;

  constructor(actions) {
    this.#actions = actions;
  }

  draw(stats) {
    const held = new Set(stats.entries.map((e) => e.model));
    const absent = stats.pins.filter((id) => !held.has(id)).map((model) => ({ model, state: "absent", pinned: true, holders: [] }));
    const entries = [...stats.entries].reverse().concat(absent); // most recently used first
    const shown = new Set(entries.map((e) => e.model));
    for (const [id, card] of this.#cards) {
      if (shown.has(id)) continue;
      if (card.contains(document.activeElement)) byId("models-title").focus();
      card.remove();
      this.#cards.delete(id);
    }
    entries.forEach((entry, i) => {
      const card = this.#cards.get(entry.model) ?? this.#add(entry.model);
      // Moving a card takes the focus from it: only those out of place move, and not the one that has it.
      const place = byId("models").children[i];
      if (place !== card && !card.contains(document.activeElement)) byId("models").insertBefore(card, place ?? null);
      fill(card, entry);
    });
    byId("models-empty").hidden = entries.length > 0;
  }

  #add(id) {
    const name = el("h3", {}, id);
    const button = (action, text) => el("button", { type: "button", "data-action": action, onclick: (event) => this.#act(event.currentTarget, id) }, text);
    const card = el("li", { class: "card" },
      el("div", { class: "heading" }, name, el("p", { class: "chip" })),
      el("dl"), el("ul", { class: "notes" }),
      el("div", { class: "actions" }, button("pin", "Pin"), button("evict", "Evict")));
    this.#cards.set(id, card);
    byId("models").append(card);
    return card;
  }

  async #act(button, id) {
    const pinned = button.getAttribute("aria-pressed") === "true";
    const [method, route] = button.dataset.action === "evict" ? ["DELETE", "models"] : [pinned ? "DELETE" : "PUT", "pins"];
    try {
      await request(`/cache/${route}/${path(id)}`, { method });
      await this.#actions.refresh();
    } catch (error) {
      this.#actions.fail(error);
    }
  }
}

function fill(card, e) {
  const chip = card.querySelector(".chip");
  setText(chip, e.state === "leased" ? `in use by ${e.leases}` : states[e.state] ?? e.state);
  chip.dataset.state = e.state;
  describe(card.querySelector("dl"), e.state === "absent" ? [] : [
    ["memory", bytes(e.bytes)],
    ["device", e.device || null],
    ["loaded", e.state === "loading" || e.state === "reserving" ? `${bytes(e.done_bytes ?? 0)} so far` : `${seconds(e.age_s)} ago, took ${seconds(e.load_took_s)}`],
    ["idle for", e.leases === 0 && e.idle_s > 0 ? seconds(e.idle_s) : null],
    ["leaves", e.pinned ? "never, it is pinned" : e.expires_s == null ? e.leases === 0 && "when its room is needed" : `in ${seconds(e.expires_s)}`],
    ["sessions", e.sessions ? String(e.sessions) : null],
    ["waiting", e.waiters ? `${e.waiters} requests` : null],
  ]);
  card.querySelector(".notes").replaceChildren(...e.holders.map((h) => el("li", {}, `Held for ${seconds(h.held_s)} by ${h.holder || "the server"}`)));
  const [pin, evict] = card.querySelectorAll("button");
  pin.setAttribute("aria-pressed", String(e.pinned));
  pin.setAttribute("aria-label", `Pin ${e.model}`);
  setText(pin, e.pinned ? "Pinned" : "Pin");
  evict.setAttribute("aria-label", `Evict ${e.model}`);
  evict.hidden = e.state === "absent";
}

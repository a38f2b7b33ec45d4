// The cache's decisions as they are made, newest first, each with its reason and who would have been next.

import { byId, bytes, el, seconds, setText } from "./dom.js";

const most = 200; // rows

const kinds = {
  loading: "Loading", loaded: "Loaded", load_failed: "Load failed:", load_stopped: "Load stopped:", evicted: "Evicted",
  draining: "Draining", freed: "Freed", unreturned: "Memory not back:", returned: "Memory came back:", waiting: "Waiting for room:",
  refused: "Refused", corrected: "Ledger corrected:", pressure: "Pressure on", pinned: "Pinned", unpinned: "Unpinned",
};
const reasons = {
  capacity: "its room was needed", ttl: "its keep-alive was over", pressure: "memory got short", admin: "an operator asked",
  config: "the settings say so", patience: "another had waited too long", abandoned: "nobody waited for it any more",
  shutdown: "the server shuts down",
};
const spoken = new Set(["loaded", "load_failed", "evicted", "refused", "pressure", "unreturned"]);

export class Journal {
  #live = false; // what comes now is new
  #announce;

  constructor(announce) {
    this.#announce = announce;
  }

  // begin empties the list: the server sends what it has kept first.
  begin() {
    this.#live = false;
    byId("journal").replaceChildren();
  }

  lost() {
    setText(byId("journal-state"), "The connection is lost; trying again.");
  }

  take({ comment, data }) {
    if (comment === "listening") {
      this.#live = true;
      setText(byId("journal-state"), "Live");
    }
    if (!data) return;
    const list = byId("journal");
    const what = sentence(data);
    list.prepend(row(data, what));
    while (list.children.length > most) list.lastChild.remove();
    if (this.#live) this.#announce(spoken.has(data.kind) ? what : "");
  }
}

function sentence(e) {
  return [kinds[e.kind] ?? e.kind, e.model || e.pool].filter(Boolean).join(" ");
}

function row(e, what) {
  const at = new Date(e.at);
  const details = [
    e.for && `for ${e.for}`,
    e.reason && (reasons[e.reason] ?? e.reason),
    e.runner_up && `next would have been ${e.runner_up}`,
    e.bytes && bytes(Math.abs(e.bytes)),
    e.seconds >= 0.05 && seconds(e.seconds),
    e.blockers?.length && `in the way: ${e.blockers.map((b) => b.model).join(", ")}`,
    e.error,
  ].filter(Boolean);
  return el("li", { "data-kind": e.kind },
    el("time", { datetime: e.at, class: "number" }, at.toLocaleTimeString("en", { hour12: false })),
    el("p", {}, el("strong", {}, what), details.length > 0 ? el("span", {}, details.join(" · ")) : null));
}

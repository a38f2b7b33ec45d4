// Load a model: first what it would do to the others, then the load with its progress.

import { events, get, path, request } from "./api.js";
import { byId, bytes, el, options, seconds, setText } from "./dom.js";

export class Plan {
  #loading = null; // AbortController of the load under way
  #asked = 0;
  #refresh;

  constructor({ refresh }) {
    this.#refresh = refresh;
    byId("plan-model").addEventListener("change", () => this.#ask());
    byId("load-button").addEventListener("click", () => this.#load());
    byId("load-cancel").addEventListener("click", () => this.#loading?.abort());
  }

  async start() {
    const { data } = await get("/v1/models");
    options(byId("plan-model"), data.map((m) => [m.id, m.id]));
    await this.#ask();
  }

  // #ask shows the plan of the chosen model; an answer that comes late is not shown.
  async #ask() {
    const id = byId("plan-model").value;
    const asked = ++this.#asked;
    let lines;
    try {
      lines = words(await get(`/cache/plan?model=${encodeURIComponent(id)}`));
    } catch (error) {
      lines = [error.message];
    }
    if (asked !== this.#asked) return;
    byId("plan").replaceChildren(...lines.map((line) => el("p", {}, line)));
  }

  async #load() {
    if (this.#loading) return;
    const id = byId("plan-model").value;
    this.#loading = new AbortController();
    this.#busy(true);
    setText(byId("load-text"), `Waiting for room for ${id}.`);
    try {
      const response = await request(`/cache/preload/${path(id)}`, { method: "POST", accept: "text/event-stream", signal: this.#loading.signal });
      for await (const event of events(response)) progress(id, event);
    } catch (error) {
      setText(byId("load-text"), error.name === "AbortError" ? "Cancelled." : error.message);
    }
    this.#loading = null;
    this.#busy(false);
    await this.#refresh();
    await this.#ask();
  }

  #busy(yes) {
    const [load, cancel, bar] = [byId("load-button"), byId("load-cancel"), byId("load-bar")];
    const focused = document.activeElement === (yes ? load : cancel);
    load.disabled = yes;
    cancel.hidden = !yes;
    bar.hidden = !yes;
    bar.removeAttribute("value");
    if (focused) (yes ? cancel : load).focus();
  }
}

function progress(id, { event, data }) {
  const text = byId("load-text");
  if (event === "progress" && data.total_bytes > 0) {
    byId("load-bar").value = data.done_bytes / data.total_bytes;
    setText(text, `Loading ${id}, ${bytes(data.total_bytes)}.`);
  }
  if (event === "loaded") setText(text, `${id} is loaded; it took ${seconds(data.took_s)}.`);
  if (event === "error") setText(text, data.error.message);
}

// words says a plan in sentences.
function words(plan) {
  if (plan.resident) return [`${plan.model} is in memory already.`];
  const out = [`It needs ${bytes(plan.needs_bytes)} more.`];
  if (plan.refused) out.push(`It would be refused: ${plan.refused}`);
  else if (plan.evicts.length > 0) out.push(`It would push out ${plan.evicts.join(" and ")}, which frees ${bytes(plan.frees_bytes)}.${plan.runner_up ? ` Next in line: ${plan.runner_up}.` : ""}`);
  else if (plan.fits) out.push("It fits beside the others.");
  if (plan.ahead.length > 0) out.push(`Before it in the queue: ${plan.ahead.join(", ")}.`);
  for (const b of plan.blockers) out.push(`In the way: ${b.model}, in use for ${seconds(b.held_s)}${b.holder ? ` by ${b.holder}` : ""}.`);
  if (!plan.refused) out.push(plan.expected_wait_s > 0 ? `Expected wait: ${seconds(plan.expected_wait_s)}, by what was measured so far.` : "Nothing was measured yet that would tell the wait.");
  return out;
}

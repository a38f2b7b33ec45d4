// The view Cache: looks at the statistics after each event of the cache, and now and then for what no event tells (who uses a
// model, ages), while somebody can see it.

import { adminKey, events, get, hasKey, keepKey, request } from "./api.js";
import { byId, bytes, describe, percent, seconds, setText, show } from "./dom.js";
import { curve } from "./curve.js";
import { Journal } from "./journal.js";
import { memory } from "./memory.js";
import { Models } from "./models.js";
import { Plan } from "./plan.js";

const lookEvery = 15000; // ms
const afterEvent = 150; // ms: events come in bursts
const retryAfter = 3000; // ms

const models = new Models({ refresh, fail });
const plan = new Plan({ refresh });
const journal = new Journal((event) => {
  setText(byId("cache-status"), event);
  soon();
});
let open = null; // AbortController of the open view
let timer = 0;
let stats = null;

export function start() {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else refresh();
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(adminKey, byId("key").value);
    byId("key").value = "";
    leave();
    enter();
  });
  for (const radio of document.getElementsByName("curve-by")) radio.addEventListener("change", () => curve(stats));
  byId("clear-button").addEventListener("click", () => byId("clear-dialog").showModal());
  byId("clear-dialog").addEventListener("close", clear);
}

export async function enter() {
  if (open) return;
  open = new AbortController();
  const { signal } = open;
  if (!(await refresh())) return;
  plan.start();
  follow(signal);
}

export function leave() {
  open?.abort();
  open = null;
  clearTimeout(timer);
}

// refresh shows the present statistics; it says whether there were any.
async function refresh() {
  clearTimeout(timer);
  const signal = open?.signal;
  if (!signal) return false;
  try {
    stats = await get("/cache/stats", signal);
  } catch (error) {
    if (error.name !== "AbortError") closed(error);
    return false;
  }
  if (signal.aborted) return false;
  byId("key-form").hidden = true;
  byId("cache-body").hidden = false;
  show(byId("cache-error"), "");
  draw();
  if (!document.hidden) timer = setTimeout(refresh, lookEvery);
  return true;
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(refresh, afterEvent);
}

// closed says why there is no cache to see, and what to do about it.
function closed(error) {
  byId("cache-body").hidden = true;
  byId("key-form").hidden = error.status !== 401;
  if (error.status === 401) {
    show(byId("cache-error"), hasKey(adminKey) ? "That key is not the server’s." : "");
    keepKey(adminKey, "");
    leave();
    byId("key").focus();
  } else if (error.status === 404) {
    leave();
    show(byId("cache-error"), "The cache is managed at another address: this server was started with ADMIN_ADDR, and serves /cache/* only there. GET /health on this address still says what is loaded.");
  } else {
    show(byId("cache-error"), error.message);
    timer = setTimeout(() => byId("cache").hidden || (leave(), enter()), retryAfter);
  }
}

function fail(error) {
  show(byId("cache-error"), error.message);
}

function draw() {
  describe(byId("counters"), [
    ["in memory", `${stats.cache_size} of ${stats.max_cache_size}`],
    ["hit rate", stats.hits + stats.misses > 0 ? percent(stats.hit_rate) : "–"],
    ["hits", String(stats.hits)],
    ["misses", String(stats.misses)],
    ["loads", String(stats.total_loads)],
    ["evictions", String(stats.evictions)],
    ["refusals", stats.refusals ? String(stats.refusals) : null],
    [`used of the machine’s ${bytes(stats.system_memory_total_gb * 2 ** 30)}`, stats.system_memory_total_gb ? bytes(stats.system_memory_gb * 2 ** 30) : null],
  ]);
  memory(stats);
  models.draw(stats);
  warmup(stats.warmup);
  curve(stats);
}

const warmupStates = { pending: "waits", loading: "is loading", ready: "is ready", missing: "is not on this machine", failed: "failed" };

function warmup(list) {
  byId("warmup-box").hidden = list.length === 0;
  const items = list.map(({ model, state, took_s: took, error }) => {
    const item = document.createElement("li");
    item.dataset.state = state;
    item.textContent = `${model} ${warmupStates[state] ?? state}${took > 0 ? ` after ${seconds(took)}` : ""}${error ? `: ${error}` : "."}`;
    return item;
  });
  byId("warmup").replaceChildren(...items);
}

// follow reads the journal until the view is left, and begins anew when the connection breaks.
async function follow(signal) {
  while (!signal.aborted) {
    try {
      const response = await request("/cache/events", { accept: "text/event-stream", signal });
      journal.begin();
      for await (const event of events(response)) journal.take(event);
    } catch {
      if (signal.aborted) return;
    }
    journal.lost();
    await new Promise((resolve) => setTimeout(resolve, retryAfter));
  }
}

async function clear() {
  const force = byId("clear-force").checked;
  byId("clear-force").checked = false;
  byId("clear-button").focus();
  if (byId("clear-dialog").returnValue !== "clear") return;
  byId("clear-dialog").returnValue = "";
  try {
    const done = await (await request(`/cache/clear${force ? "?force=true" : ""}`, { method: "POST" })).json();
    setText(byId("cache-status"), `Freed ${done.freed.length} models, ${bytes(done.freed_bytes)}; ${done.draining.length} go at their last release.`);
    refresh();
  } catch (error) {
    fail(error);
  }
}

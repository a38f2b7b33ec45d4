// The page: which view is open, and how the server is.

import { get } from "./api.js";
import { byId, setText } from "./dom.js";
import * as cache from "./cache.js";
import * as speak from "./speak.js";

const lookEvery = 15000; // ms between looks at the server's health

const views = { speak: "Speak", cache: "Cache" };
let current = "";

// route opens the view that the address names; moved says that a person went there, whose focus goes along.
function route(moved) {
  const name = location.hash.slice(1) in views ? location.hash.slice(1) : "speak";
  if (name === current) return;
  current = name;
  document.title = `${views[name]} · barkd`;
  for (const view of Object.keys(views)) byId(view).hidden = view !== name;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (moved) byId(`${name}-title`).focus();
  if (name === "cache") cache.enter();
  else cache.leave();
}

// health shows the server's state in the masthead and returns what it said.
async function health() {
  const told = await get("/health").catch((error) => ({ status: "unreachable", error: error.message }));
  byId("server-state").dataset.state = told.status;
  setText(byId("server-text"), told.version ? `${told.backend === "mock" ? "Simulated runtime" : "Ready"} · ${told.version}` : told.error);
  return told;
}

cache.start();
window.addEventListener("hashchange", () => route(true));
route(false);
const told = await health();
setInterval(health, lookEvery);
speak.start(told);

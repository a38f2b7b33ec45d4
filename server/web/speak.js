// The view Speak: a text becomes audio that plays as it arrives.

import { apiKey, get, hasKey, keepKey, request } from "./api.js";
import { byId, clock, describe, el, options, seconds, setText, show } from "./dom.js";
import * as keeper from "./keeper.js";
import { Player } from "./player.js";
import * as speech from "./speech.js";
import { Wave } from "./wave.js";
import * as wav from "./wav.js";

const stages = ["semantic", "coarse", "fine", "codec"];
const lookEvery = 700; // ms between looks at what the server does
const maxInputChars = 65536; // of a server with the usual MAX_INPUT_CHARS

const player = new Player();
const wave = new Wave(byId("wave"), draw);
let models = [];
let running = null; // AbortController of the request under way
let file = ""; // object URL of the download
let seed = ""; // of the audio in the player
let frame = 0; // of the animation, while it plays

// start fills the view; health is what GET /health said.
export async function start(health) {
  const simulated = health.backend === "mock";
  byId("speak-form").addEventListener("submit", (event) => {
    event.preventDefault();
    speak();
  });
  byId("input").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("speak-form").requestSubmit();
  });
  byId("input").addEventListener("input", count);
  byId("cancel-button").addEventListener("click", () => running?.abort());
  byId("model").addEventListener("change", () => choose(simulated));
  byId("play-button").addEventListener("click", () => (player.playing ? player.pause() : player.play()));
  byId("position").addEventListener("input", (event) => player.seek(Number(event.target.value)));
  byId("keep-seed").addEventListener("click", keepSeed);
  byId("api-key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    keepKey(apiKey, byId("api-key").value);
    byId("api-key").value = "";
    list(health);
  });
  player.addEventListener("change", draw);
  keeper.start(async (id) => {
    await choose(simulated);
    byId("voice").value = id;
  });
  count();
  await list(health);
}

// list fills in the models.
async function list(health) {
  const simulated = health.backend === "mock";
  try {
    models = (await get("/v1/models")).data;
    options(byId("model"), models.map((m) => [m.id, m.id]));
    byId("model").value = usual(health.cache?.cached_models ?? []);
    failed(null);
    await choose(simulated);
  } catch (error) {
    failed(error);
  }
}

// failed says what went wrong, null for nothing, and asks for a key if that is what is missing.
function failed(error) {
  const locked = error?.status === 401;
  byId("api-key-form").hidden = !locked;
  show(byId("speak-error"), locked ? hasKey(apiKey) && "That key is not the server’s." : error?.message);
  if (!locked) return;
  keepKey(apiKey, "");
  byId("api-key").focus();
}

// usual is the model that answers soonest: the one in memory that was used last, else the smallest that can speak.
function usual(cached) {
  const trained = models.filter((m) => m.trained).sort((a, b) => a.bytes - b.bytes);
  return cached.findLast((id) => trained.some((m) => m.id === id)) ?? (trained[0] ?? models[0])?.id;
}

function count() {
  const text = byId("input").value;
  const characters = [...text].length;
  setText(byId("input-count"), `${characters.toLocaleString("en")} characters${characters > maxInputChars ? ", more than the server takes" : ""}`);
}

// choose says what the model is and lists its voices.
async function choose(simulated) {
  const model = models.find((m) => m.id === byId("model").value);
  if (!model) return;
  const notice = simulated ? "This server simulates its models (BARKD_BACKEND=mock): you will hear tones, not speech."
    : !model.trained && "This model is untrained: it has Bark’s architecture and random weights. You will hear noise, not speech. ‘barkd pull suno/bark-small’ fetches one that speaks.";
  show(byId("untrained"), notice);
  setText(byId("model-hint"), model.trained ? `${model.voices} voices` : "untrained");
  try {
    const told = await get(`/v1/audio/voices?model=${encodeURIComponent(model.id)}`);
    if (byId("model").value === model.id) listVoices(told);
  } catch (error) {
    show(byId("speak-error"), error.message);
  }
}

function listVoices({ voices, stored = [], default: usual, aliases }) {
  const named = Object.entries(aliases);
  options(byId("voice"), [["", usual ? `The usual one (${usual})` : "The model’s own"], ["none", "None: it makes up a speaker"]]);
  const group = (label, pairs) => pairs.length > 0 &&
    el("optgroup", { label }, ...pairs.map(([value, text]) => el("option", { value }, text)));
  const groups = [group("Kept on this server", stored.map((v) => [v.id, v.name])), group("Voices of the model", voices.map((v) => [v, v])),
    group("OpenAI’s names", voices.length > 0 ? named.map(([name, voice]) => [name, `${name} (${voice})`]) : [])];
  byId("voice").append(...groups.filter(Boolean));
}

function body() {
  const out = { model: byId("model").value, input: byId("input").value, response_format: "pcm", stream_format: "sse", progress: true };
  if (byId("voice").value) out.voice = byId("voice").value;
  if (byId("temperature").value) out.temperature = Number(byId("temperature").value);
  return out;
}

// encode writes the body with the seed as it was typed: JavaScript's numbers end at 2^53, seeds at 2^64.
function encode(fields, typed) {
  const text = JSON.stringify(fields);
  return typed ? `${text.slice(0, -1)},"seed":${BigInt(typed)}}` : text;
}

async function speak() {
  if (running) return;
  running = new AbortController();
  player.unlock();
  player.pause();
  show(byId("speak-error"), "");
  const work = watch(body().model);
  const began = performance.now();
  try {
    const response = await request("/v1/audio/speech", { method: "POST", json: encode(body(), byId("seed").value.trim()), signal: running.signal });
    await listen(response, began, work.progress);
    setText(byId("speak-status"), `Done: ${seconds(player.seconds)} of audio.`);
  } catch (error) {
    if (error.name === "AbortError") setText(byId("speak-status"), "Cancelled.");
    else failed(error);
  } finally {
    running = null;
    work.stop();
  }
}

// watch shows that work goes on, and on what; progress takes what the server tells of it, stop ends it.
function watch(model) {
  const began = performance.now();
  const said = (text) => setText(byId("work-text"), text);
  const bar = byId("work-bar");
  bar.removeAttribute("value");
  said("Sent to the server.");
  setText(byId("speak-status"), "Working.");
  busy(true);
  const tick = setInterval(() => setText(byId("work-time"), seconds((performance.now() - began) / 1000)), 100);
  const look = setInterval(async () => {
    const health = await get("/health").catch(() => null);
    const entry = health?.cache?.entries.find((e) => e.model === model);
    if (!running || !health || bar.hasAttribute("value")) return;
    if (!entry || entry.state === "reserving") said(`Waiting for room for ${model}.`);
    else if (entry.state === "loading") said(`Loading ${model}${entry.done_bytes ? ` (${Math.min(99, Math.floor((100 * entry.done_bytes) / entry.bytes))} %)` : ""}.`);
    else said(health.requests.waiting > 0 ? `Speaking; ${health.requests.waiting} in the queue.` : "Speaking.");
  }, lookEvery);
  return {
    progress({ piece, pieces, stage, done, total }) {
      clearInterval(look);
      const at = (piece + (stages.indexOf(stage) + done / total) / stages.length) / pieces;
      bar.value = Math.max(at, bar.hasAttribute("value") ? bar.value : 0); // stages take turns
      said(pieces > 1 ? `Part ${piece + 1} of ${pieces}: ${stage}.` : `Speaking: ${stage}.`);
    },
    stop() {
      clearInterval(tick);
      clearInterval(look);
      busy(false);
    },
  };
}

function busy(yes) {
  const [speakButton, cancelButton] = [byId("speak-button"), byId("cancel-button")];
  const focused = document.activeElement === (yes ? speakButton : cancelButton);
  byId("work").hidden = !yes;
  speakButton.disabled = yes;
  cancelButton.hidden = !yes;
  if (focused) (yes ? cancelButton : speakButton).focus();
}

// listen plays the answer to a request that was sent at began, as it comes.
async function listen(response, began, progress) {
  let first = 0;
  await speech.read(response, {
    progress,
    part(samples) {
      if (!first) {
        first = (performance.now() - began) / 1000;
        player.begin(Number(response.headers.get("X-Barkd-Sample-Rate")));
        byId("player").hidden = false;
        player.play();
      }
      player.add(samples);
    },
  });
  if (!first) throw new Error("The model said nothing: try again, or with another seed.");
  player.end();
  const took = (performance.now() - began) / 1000;
  URL.revokeObjectURL(file);
  file = URL.createObjectURL(wav.write(player.samples, player.rate));
  byId("download").href = file;
  tell(response.headers, first, took);
}

// tell lists what is known of the audio. Of a stream the server says its real-time factor in a trailer, which browsers do
// not show to pages: then it is the one that was seen here.
function tell(headers, first, took) {
  const factor = Number(headers.get("X-Barkd-Real-Time-Factor") ?? took / player.seconds);
  seed = headers.get("X-Barkd-Seed") ?? "";
  byId("keep-seed").disabled = seed === "";
  keeper.offer(headers.get("X-Barkd-Generation"));
  describe(byId("facts"), [
    ["Length", seconds(player.seconds)],
    ["First sound after", seconds(first)],
    ["Seed", seed],
    ["Real-time factor", player.seconds > 0 && `${factor.toFixed(2)} ${factor <= 1 ? "(faster than it plays)" : "(slower than it plays)"}`],
    ["Voice", headers.get("X-Barkd-Voice") ?? "made up"],
    ["Pieces", headers.get("X-Barkd-Pieces")],
    ["Model", headers.get("X-Barkd-Untrained") ? "untrained: noise, not speech" : null],
  ]);
}

function keepSeed() {
  byId("seed").value = seed;
  byId("seed").closest("details").open = true;
  byId("seed").focus();
}

// draw shows where the player is, and goes on while it plays.
function draw() {
  const [at, all] = [player.position, player.seconds];
  const button = byId("play-button");
  button.dataset.state = player.playing ? "playing" : "paused";
  button.setAttribute("aria-label", player.playing ? "Pause" : "Play");
  const position = byId("position");
  position.max = all;
  position.value = at;
  position.setAttribute("aria-valuetext", `${at.toFixed(1)} of ${all.toFixed(1)} seconds`);
  setText(byId("clock"), `${clock(at)} / ${clock(all)}`);
  wave.draw(player.samples, all ? at / all : 0);
  cancelAnimationFrame(frame);
  if (player.playing) frame = requestAnimationFrame(draw);
}

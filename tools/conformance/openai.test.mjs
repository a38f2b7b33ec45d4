// OpenAI's official client for JavaScript against the server at BARKD_URL, whose key is BARKD_KEY. Run by clients.py.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";

// The packages lie outside the tree (see run), where an import would not look.
const require = createRequire(join(process.env.CONFORMANCE_MODULES, "package.json"));
const { OpenAI, BadRequestError, NotFoundError, toFile } = require("openai");

const url = process.env.BARKD_URL;
const headers = { Authorization: `Bearer ${process.env.BARKD_KEY}` };
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.BARKD_KEY, maxRetries: 0 });
const request = { model: "barkd/tiny", voice: "echo", input: "It looks easy until you try it. Then you see what it takes.", seed: 7 };
const speak = async (fields) => Buffer.from(await (await client.audio.speech.create({ ...request, ...fields })).arrayBuffer());

// decode returns 16-bit samples of 24 kHz.
function decode(data) {
  const done = spawnSync("ffmpeg", ["-hide_banner", "-loglevel", "error", "-i", "pipe:0", "-f", "s16le", "-ar", "24000", "-ac", "1", "pipe:1"],
    { input: data, maxBuffer: 1 << 26 });
  assert.equal(done.status, 0, String(done.stderr));
  return done.stdout;
}

const pcm = await speak({ response_format: "pcm" });
const slack = { mp3: 1105 + 2 * 576, aac: 3 * 1024 }; // samples; a text of two pieces is a stream of them

for (const response_format of ["mp3", "opus", "aac", "flac", "wav"]) {
  test(`${response_format} decodes to its length`, async () => {
    const got = decode(await speak({ response_format }));
    const extra = (got.length - pcm.length) / 2;
    assert.ok(extra >= 0 && extra <= (slack[response_format] ?? 0), `${extra} samples more`);
    if (response_format === "flac" || response_format === "wav") assert.ok(got.equals(pcm));
  });
}

test("a raw response has the headers", async () => {
  const response = await client.audio.speech.create({ ...request, response_format: "wav" }).asResponse();
  assert.equal(response.headers.get("x-barkd-seed"), "7");
  assert.equal(response.headers.get("x-barkd-voice"), "rms");
  assert.ok(decode(Buffer.from(await response.arrayBuffer())).equals(pcm));
});

test("a stream comes in chunks", async () => {
  const { data, response } = await client.audio.speech.create({ ...request, response_format: "pcm", stream_format: "audio" }).withResponse();
  assert.equal(response.headers.get("content-length"), null);
  const chunks = [];
  for await (const chunk of data.body) chunks.push(chunk);
  assert.ok(chunks.length > 1);
  assert.ok(Buffer.concat(chunks).equals(pcm));
});

test("events hold the same audio", async () => {
  const response = await client.audio.speech.create({ ...request, response_format: "pcm", stream_format: "sse" });
  const events = (await response.text()).split("\n").filter((l) => l.startsWith("data: ")).map((l) => JSON.parse(l.slice(6)));
  const audio = events.filter((e) => e.type === "speech.audio.delta").map((e) => Buffer.from(e.audio, "base64"));
  assert.ok(Buffer.concat(audio).equals(pcm));
  assert.equal(events.at(-1).type, "speech.audio.done");
});

test("errors are the client's own", async () => {
  await assert.rejects(speak({ model: "tts-1" }), (e) => e instanceof NotFoundError && e.code === "model_not_found" && e.param === "model");
  await assert.rejects(speak({ speed: 5 }), (e) => e instanceof BadRequestError && e.param === "speed" && Boolean(e.requestID));
});

test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["barkd/tiny"]);
  assert.equal((await client.models.retrieve("barkd/tiny")).object, "model");
});

test("a voice is made, spoken with and deleted", async () => {
  const { response } = await client.audio.speech.create({ ...request, voice: "none" }).withResponse();
  const generation = response.headers.get("x-barkd-generation");
  await response.arrayBuffer();
  const kept = await client.post("/audio/voices", { body: { name: "kept in JavaScript", generation } });
  const npz = await (await fetch(`${url}/v1/audio/voices/${kept.id}?format=npz`, { headers })).arrayBuffer();
  const sent = await client.audio.voices.create({ name: "sent from JavaScript", consent: "cons_1234", audio_sample: await toFile(npz, "voice.npz") });
  const said = await Promise.all([sent.id, kept.id].map((id) => speak({ voice: { id }, response_format: "pcm" })));
  assert.ok(said[0].equals(said[1]));
  for (const { id } of [sent, kept]) assert.ok((await client.audio.voices.delete(id)).deleted);
});

// The web page in a real browser: what a person with a keyboard, a mouse or a screen reader meets.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { launch, open, root, serve, violations } from "./site.mjs";

const shots = join(root, "build/browser");
let site, browser;

before(async () => {
  await mkdir(shots, { recursive: true });
  [site, browser] = await Promise.all([serve(), launch()]);
});

after(async () => {
  await browser?.close();
  await site?.close();
});

// until asks again and again. (Playwright's waitForFunction needs an eval, which the page's policy refuses.)
async function until(holds, otherwise) {
  for (const end = Date.now() + 10_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
    if (await holds()) return;
  }
  assert.fail(otherwise);
}

// tabTo presses Tab until the element has the focus.
async function tabTo(page, selector) {
  for (let i = 0; i < 60; i++) {
    if (await page.evaluate((s) => document.activeElement.matches(s), selector)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab never reaches ${selector}`);
}

// whole is the WAV that the server sends for the same request without streaming.
async function whole(fields) {
  const response = await fetch(`${site.url}/v1/audio/speech`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...fields, response_format: "wav", stream_format: undefined, progress: undefined }),
  });
  return Buffer.from(await response.arrayBuffer());
}

// heard saves the download and returns its bytes with the samples that the browser decodes from them.
async function heard(page, press) {
  const [download] = await Promise.all([page.waitForEvent("download"), press()]);
  const bytes = await readFile(await download.path());
  const decoded = await page.evaluate(async (base64) => {
    const file = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const audio = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(file.buffer);
    const samples = audio.getChannelData(0);
    return { rate: audio.sampleRate, length: samples.length, peak: samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0) };
  }, bytes.toString("base64"));
  return { bytes, ...decoded };
}

const factsOf = (page) => page.locator("#facts").innerText();

test("a text is spoken, heard and saved with the keyboard alone", async () => {
  const { page, errors } = await open(browser, site.url);
  await page.locator("#voice optgroup").first().waitFor({ state: "attached" });
  await tabTo(page, "#input");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("Every word of this came from a keyboard.");
  await tabTo(page, "#voice");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  const answer = page.waitForResponse((r) => r.url().endsWith("/v1/audio/speech"));
  await tabTo(page, "#speak-button");
  await page.keyboard.press("Enter");
  const headers = (await answer).headers();
  const asked = JSON.parse((await answer).request().postData());
  await page.locator("#facts dd").first().waitFor();
  await until(async () => Number(await page.locator("#position").inputValue()) > 0.05, "the audio does not play");
  assert.match(await factsOf(page), new RegExp(headers["x-barkd-seed"]));
  assert.match(await factsOf(page), /Real-time factor/);
  assert.ok((await page.locator("#work-bar").evaluate((bar) => bar.value)) > 0.75, "the bar does not show the last stage");
  assert.match(await page.locator("#work-text").evaluate((text) => text.textContent), /codec/);

  await tabTo(page, "#play-button");
  await page.keyboard.press("Space");
  assert.equal(await page.locator("#play-button").getAttribute("aria-label"), "Play");
  await tabTo(page, "#position");
  await page.keyboard.press("Home");
  assert.equal(await page.locator("#position").inputValue(), "0");

  await tabTo(page, "#keep-seed");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#seed").inputValue(), headers["x-barkd-seed"]);
  await tabTo(page, "#download");
  const first = await heard(page, () => page.keyboard.press("Enter"));
  assert.equal(first.rate, 24000);
  assert.ok(first.peak > 0.05, `the loudest sample is ${first.peak}`);
  assert.ok(first.length > 24000, `${first.length} samples`);
  // A drawn seed stays under 2^53, so that this JSON carries it.
  assert.ok(first.bytes.equals(await whole({ ...asked, seed: Number(headers["x-barkd-seed"]) })), "streamed and whole audio differ");

  // The kept seed is written without loss: the same audio comes again.
  const again = page.waitForResponse((r) => r.url().endsWith("/v1/audio/speech"));
  await page.locator("#input").press("Control+Enter");
  await (await again).finished();
  await page.locator("#work").waitFor({ state: "hidden" });
  const second = await heard(page, () => page.locator("#download").click());
  assert.ok(first.bytes.equals(second.bytes), "the same seed gave other audio");
  assert.deepEqual(errors, []);
  await page.close();
});

test("the voice of a speech is kept and speaks again", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "barkd-voices-"));
  const keeping = await serve({ VOICES_DIR: folder });
  t.after(async () => {
    await keeping.close();
    await rm(folder, { recursive: true });
  });
  const { page, errors } = await open(browser, keeping.url, { refusals: [409] });
  await page.locator("#voice optgroup").first().waitFor({ state: "attached" });
  await page.click("#speak-button");
  await page.locator("#facts dd").first().waitFor();
  await page.click("#voice-keeper summary");
  await page.fill("#voice-name", "My narrator");
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press("Enter");
  await page.locator("#speak-status", { hasText: "is kept and chosen" }).waitFor({ state: "attached" });
  assert.equal(await page.locator("#voice option:checked").innerText(), "My narrator");
  assert.equal(await page.evaluate(() => document.activeElement.id), "voice");
  const answer = page.waitForResponse((r) => r.url().endsWith("/v1/audio/speech"));
  await page.click("#speak-button");
  assert.equal((await answer).headers()["x-barkd-voice"], await page.locator("#voice").inputValue());
  await page.locator("#work").waitFor({ state: "hidden" });
  await page.click("#voice-keeper summary");
  await page.fill("#voice-name", "My narrator");
  await page.keyboard.press("Enter");
  await page.locator("#voice-error", { hasText: /name/ }).waitFor();
  assert.deepEqual(errors, []);
  await page.close();
});

test("a cancelled request ends in the page and in the server", async () => {
  const { page, errors } = await open(browser, site.url);
  await page.locator("#voice optgroup").first().waitFor({ state: "attached" });
  await page.fill("#input", "This sentence is one of very many. ".repeat(400));
  await page.click("#speak-button");
  await page.locator("#work-text", { hasText: "Part 1 of" }).waitFor();
  await page.screenshot({ path: join(shots, "working.png") });
  await page.click("#cancel-button");
  await page.locator("#speak-status", { hasText: "Cancelled" }).waitFor({ state: "attached" });
  assert.equal(await page.evaluate(() => document.activeElement.id), "speak-button");
  await until(async () => {
    const { requests } = await (await fetch(`${site.url}/health`)).json();
    return requests.running + requests.waiting === 0;
  }, "the server still works for a client that is gone");
  assert.deepEqual(errors, []);
  await page.close();
});

test("an eviction is foretold, watched and explained", async (t) => {
  const full = await serve(); // the warm-up fills its cache
  t.after(full.close);
  const { page, errors } = await open(browser, `${full.url}/#cache`);
  await page.locator("#models .card .chip", { hasText: "idle" }).nth(1).waitFor();
  const before = await page.locator("#models h3").allInnerTexts();
  const victim = before.at(-1); // least recently used
  await page.selectOption("#plan-model", "mock/bark-xl");
  await page.locator("#plan", { hasText: `push out ${victim}` }).waitFor();
  await page.click("#load-button");
  await page.locator("#load-bar[value]").waitFor(); // progress is seen
  await page.locator("#load-text", { hasText: "is loaded" }).waitFor();
  const row = page.locator("#journal [data-kind=evicted]").first();
  await row.waitFor();
  assert.match(await row.innerText(), new RegExp(`Evicted ${victim}.*for mock/bark-xl.*its room was needed.*next would have been ${before[0]}`, "s"));
  await page.locator("#models h3", { hasText: victim }).filter({ hasNotText: `${victim}-` }).waitFor({ state: "detached" });
  assert.match(await page.locator("#counters").innerText(), /evictions\s+1/);
  assert.match(await page.locator("#memory .bar").getAttribute("aria-label"), /% of the budget is taken/);
  await page.screenshot({ path: join(shots, "eviction.png"), fullPage: true });
  assert.deepEqual(errors, []);
  await page.close();
});

test("models are pinned and evicted with the keyboard alone", async () => {
  const { page, errors } = await open(browser, `${site.url}/#cache`);
  await page.locator("#models .card").first().waitFor();
  const pin = "[aria-label='Pin suno/bark']";
  await tabTo(page, pin);
  await page.keyboard.press("Enter");
  await page.locator(`${pin}[aria-pressed=true]`).waitFor();
  assert.ok(await page.evaluate((s) => document.activeElement.matches(s), pin), "the focus stays where it was");
  await page.keyboard.press("Enter");
  await page.locator(`${pin}[aria-pressed=false]`).waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator(pin).waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.activeElement.id), "models-title");
  assert.deepEqual(errors, []);
  await page.close();
});

for (const colorScheme of ["light", "dark"]) {
  for (const width of [1280, 375]) {
    test(`nothing in the way of anybody: ${colorScheme}, ${width} px`, async () => {
      const { page, errors } = await open(browser, site.url);
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width, height: 900 });
      await page.locator("#model option").first().waitFor({ state: "attached" });
      await page.locator("summary").first().click();
      await page.selectOption("#model", "suno/bark-small");
      await page.click("#speak-button");
      await page.locator("#facts dd").first().waitFor();
      await look(page, `speak-${colorScheme}-${width}`);
      await page.click("nav [data-view=cache]");
      await page.locator("#models .card").first().waitFor();
      await page.locator("#journal li").first().waitFor();
      await page.locator("#plan p").first().waitFor();
      await look(page, `cache-${colorScheme}-${width}`);
      await page.click("nav [href='/docs']");
      await page.locator("#createSpeech").waitFor();
      for (const all of await page.locator("#createSpeech summary").all()) await all.click();
      await look(page, `docs-${colorScheme}-${width}`);
      assert.deepEqual(errors, []);
      await page.close();
    });
  }
}

test("the page of the API has every route, and its commands work", async () => {
  const { page, errors } = await open(browser, `${site.url}/docs#createSpeech`);
  await page.locator("#createSpeech").waitFor();
  const spec = await (await fetch(`${site.url}/openapi.json`)).json();
  const routes = Object.values(spec.paths).flatMap((item) => Object.values(item)).map((operation) => operation.operationId);
  const shown = await page.locator(".route").evaluateAll((all) => all.map((one) => one.id));
  assert.deepEqual(shown.toSorted(), routes.toSorted());
  const command = await page.locator("#createSpeech pre").innerText();
  const { stdout } = await promisify(execFile)("bash", ["-c", `${command.replace("-o speech", "-sS -o -")} | head -c 3`], { encoding: "latin1" });
  assert.match(stdout, /^(ID3|\xff)/, "it writes an MP3");
  await page.locator("#contents a", { hasText: "/cache/events" }).click();
  assert.ok(await page.locator("#cacheEvents h3").isVisible());
  assert.deepEqual(errors, []);
  await page.close();
});

async function look(page, name) {
  await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
  assert.deepEqual(await violations(page), []);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page is wider than the window");
}

test("a guarded server asks for its key, speaks with it and manages the cache", async (t) => {
  const guarded = await serve({ API_KEYS: "sesame" });
  t.after(guarded.close);
  const { page, errors } = await open(browser, guarded.url, { refusals: [401] });
  await page.fill("#api-key", "guess");
  await page.keyboard.press("Enter");
  await page.locator("#speak-error", { hasText: "not the server’s" }).waitFor();
  assert.deepEqual(await violations(page), []);
  await page.fill("#api-key", "sesame");
  await page.keyboard.press("Enter");
  await page.locator("#api-key-form").waitFor({ state: "hidden" });
  await page.fill("#input", "Open.");
  await page.keyboard.press("Control+Enter");
  await page.locator("#speak-status", { hasText: "Done" }).waitFor();
  await page.locator("[data-view=cache]").click();
  await page.locator("#models .card").first().waitFor();
  assert.deepEqual(errors, []);
  await page.close();
});

test("a guarded cache asks for its key and takes it", async (t) => {
  const guarded = await serve({ ADMIN_KEY: "open sesame" });
  t.after(guarded.close);
  const { page, errors } = await open(browser, `${guarded.url}/#cache`, { refusals: [401] });
  await page.fill("#key", "guess");
  await page.keyboard.press("Enter");
  await page.locator("#cache-error", { hasText: "not the server’s" }).waitFor();
  assert.deepEqual(await violations(page), []);
  await page.fill("#key", "open sesame");
  await page.keyboard.press("Enter");
  await page.locator("#models .card").first().waitFor();
  assert.deepEqual(errors, []);
  await page.close();
});

test("a cache at another address is said to be there", async (t) => {
  const apart = await serve({ ADMIN_ADDR: "127.0.0.1:0" });
  t.after(apart.close);
  const { page, errors } = await open(browser, `${apart.url}/#cache`, { refusals: [404] });
  await page.locator("#cache-error", { hasText: "ADMIN_ADDR" }).waitFor();
  assert.deepEqual(errors, []);
  await page.close();
});

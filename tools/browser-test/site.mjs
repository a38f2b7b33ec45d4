// Starts what a test needs: barkd on a simulated runtime, Chromium, a page that reports its errors.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// The packages lie outside the tree (see run), where an import would not look.
const require = createRequire(join(process.env.BROWSER_TEST_MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

process.once("SIGTERM", () => process.exit(1)); // the test runner's patience is over: leave no server behind

export const root = join(import.meta.dirname, "../..");

// serve starts a server on a free port of loopback and returns its address once it listens.
export async function serve(env = {}) {
  const child = spawn(join(root, "bin/barkd"), ["serve", "--host", "127.0.0.1", "--port", "0"], {
    env: { ...process.env, BARKD_BACKEND: "mock", MOCK_TIME_SCALE: "0.05", MAX_CACHED_MODELS: "2", CACHE_STATE: "off", LOG_FORMAT: "json", ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  process.once("exit", () => child.kill("SIGKILL"));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const address = await new Promise((resolve, reject) => {
    const lines = createInterface(child.stderr);
    lines.on("line", (line) => {
      const said = JSON.parse(line);
      if (said.message === "serving") resolve(said.address);
    });
    ended.then((code) => reject(new Error(`barkd ended with ${code}`)));
  });
  return {
    url: `http://${address}`,
    async close() {
      child.kill("SIGTERM");
      assert.equal(await ended, 0, "barkd's exit status");
    },
  };
}

export async function launch() {
  const profile = await mkdtemp(join(tmpdir(), "barkd-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--mute-audio"],
    viewport: { width: 1280, height: 900 },
  });
  context.setDefaultTimeout(20_000);
  return {
    context,
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

// open opens a page; anything it writes to the console as an error, a refused script among them, is kept. refusals
// are the statuses of the server that are meant to come.
export async function open(browser, url, { refusals = [] } = {}) {
  const page = await browser.context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (line) => {
    const text = line.text();
    if (line.type() === "error" && !refusals.some((status) => text.includes(`status of ${status}`))) errors.push(text);
  });
  await page.goto(url);
  return { page, errors };
}

// violations are what axe-core finds, in words.
export async function violations(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(" ")}: ${n.failureSummary}`));
}

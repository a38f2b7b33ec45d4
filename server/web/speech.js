// A speech as the server sends it in events: samples while they are made, and what the work is at.

import { events } from "./api.js";

// read calls part(Float32Array) for each piece of the audio and progress({piece, pieces, stage, done, total}) for each step
// of the work. The response is one of stream_format "sse", response_format "pcm", 16-bit little-endian.
export async function read(response, { part, progress }) {
  let held = new Uint8Array(0); // half a sample, perhaps
  for await (const { event, data } of events(response)) {
    switch (event) {
      case "speech.audio.delta": {
        const bytes = join(held, Uint8Array.from(atob(data.audio), (c) => c.charCodeAt(0)));
        const whole = bytes.length & ~1;
        if (whole > 0) part(floats(bytes.subarray(0, whole)));
        held = bytes.slice(whole);
        break;
      }
      case "speech.audio.progress":
        progress(data);
        break;
      case "speech.audio.error":
        throw new Error(data.error.message);
      case "speech.audio.done":
        return;
    }
  }
  throw new Error("The audio ended before its end.");
}

function join(a, b) {
  if (a.length === 0) return b;
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

function floats(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(bytes.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = view.getInt16(2 * i, true) / 32768;
  return out;
}

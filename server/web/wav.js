// 16-bit mono WAV, read while it arrives and written for the download.

const headerBytes = 44;

// read calls begin(rate) and then part(Float32Array) for each piece of the body of a response. A stream whose header
// cannot know its length is read to its end.
export async function read(response, { begin, part }) {
  const reader = response.body.getReader();
  let held = new Uint8Array(0); // bytes not yet used
  let left = null; // bytes of samples to come; null before the header
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    held = join(held, value);
    if (left === null) {
      const head = header(held);
      if (!head) continue;
      left = head.length;
      held = held.subarray(head.end);
      begin(head.rate);
    }
    const take = Math.min(held.length, left) & ~1;
    if (take > 0) part(floats(held.subarray(0, take)));
    held = held.slice(take);
    left -= take;
  }
  if (left === null) throw new Error("The audio ended before its header.");
}

function join(a, b) {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

// header finds the rate and where the samples begin, or null while more bytes are needed.
function header(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  if (bytes.length < 12) return null;
  if (name(0) !== "RIFF" || name(8) !== "WAVE") throw new Error("The server sent no WAV.");
  let rate = 0;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    if (name(at) === "data") return { rate, end: at + 8, length: size === 0 || size >= 0x7fffff00 ? Infinity : size };
    if (name(at) === "fmt ") {
      if (bytes.length < at + 24) return null;
      if (view.getUint16(at + 8, true) !== 1 || view.getUint16(at + 22, true) !== 16) throw new Error("The server sent a WAV that is not 16-bit.");
      rate = view.getUint32(at + 12, true);
    }
    at += 8 + size + (size & 1);
  }
  return null;
}

function floats(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(bytes.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = view.getInt16(2 * i, true) / 32768;
  return out;
}

// write makes a file of samples; those that read gave come out as the bytes they were.
export function write(samples, rate) {
  const view = new DataView(new ArrayBuffer(headerBytes + 2 * samples.length));
  const text = (at, s) => [...s].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, headerBytes - 8 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes a second
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(headerBytes + 2 * i, Math.round(x * 32768), true));
  return new Blob([view], { type: "audio/wav" });
}

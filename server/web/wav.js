// 16-bit mono WAV, written for the download.

const headerBytes = 44;

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

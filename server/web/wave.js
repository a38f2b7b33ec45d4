// The waveform: bars of the loudest sample in each stretch, what was heard in the accent colour.

const barWidth = 3; // CSS pixels
const gap = 2;

export class Wave {
  #canvas;
  #peaks = [];
  #for = -1; // samples and width the peaks were made of
  #width = 0;

  constructor(canvas, redraw) {
    this.#canvas = canvas;
    new ResizeObserver(redraw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  draw(samples, heard) {
    const canvas = this.#canvas;
    const { width, height } = canvas.getBoundingClientRect();
    if (width === 0) return;
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const bars = Math.floor((width + gap) / (barWidth + gap));
    if (this.#for !== samples.length || this.#width !== bars) {
      this.#peaks = peaks(samples, bars);
      this.#for = samples.length;
      this.#width = bars;
    }
    const style = getComputedStyle(canvas);
    const [played, coming] = [style.getPropertyValue("--played"), style.getPropertyValue("--coming")];
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    this.#peaks.forEach((peak, i) => {
      const tall = Math.max(barWidth, peak * height);
      pen.fillStyle = i < heard * bars ? played : coming;
      pen.beginPath();
      pen.roundRect(i * (barWidth + gap), (height - tall) / 2, barWidth, tall, barWidth / 2);
      pen.fill();
    });
  }
}

// peaks are relative to the loudest, so that quiet speech can be seen, too.
function peaks(samples, bars) {
  const out = new Array(bars).fill(0);
  for (let i = 0; i < samples.length; i++) {
    const bar = Math.floor((i * bars) / samples.length);
    out[bar] = Math.max(out[bar], Math.abs(samples[i]));
  }
  const most = Math.max(...out, 1e-6);
  return out.map((peak) => peak / most);
}

// Plays samples while they are still arriving. What has arrived is scheduled in one piece after the other on the audio
// clock; a seek stops all pieces and schedules what follows.

export class Player extends EventTarget {
  #context;
  #sources = new Set();
  #room = new Float32Array(0); // grows by doubling
  #from = 0; // sample at which the playing began
  #startedAt = 0; // audio clock at that moment
  #scheduled = 0; // samples handed to the audio clock
  rate = 0;
  length = 0; // samples
  playing = false;
  complete = false; // nothing more arrives

  begin(rate) {
    this.pause();
    this.rate = rate;
    this.length = 0;
    this.#room = new Float32Array(rate * 16);
    this.#from = 0;
    this.complete = false;
  }

  add(part) {
    if (this.length + part.length > this.#room.length) {
      const grown = new Float32Array(2 * (this.length + part.length));
      grown.set(this.samples);
      this.#room = grown;
    }
    this.#room.set(part, this.length);
    this.length += part.length;
    if (this.playing) this.#schedule();
    this.#tell();
  }

  end() {
    this.complete = true;
    this.#tell();
  }

  get samples() {
    return this.#room.subarray(0, this.length);
  }

  get seconds() {
    return this.rate ? this.length / this.rate : 0;
  }

  // position is where the ear is, in seconds.
  get position() {
    const played = this.playing ? Math.max(0, this.#context.currentTime - this.#startedAt) : 0;
    return Math.min(this.#from / (this.rate || 1) + played, this.seconds);
  }

  // unlock must be called while the browser handles a click or key: it lets no page play by itself.
  unlock() {
    this.#context ??= new AudioContext();
    this.#context.resume();
  }

  play() {
    if (this.playing || !this.rate) return;
    this.unlock();
    if (this.complete && this.position >= this.seconds) this.#from = 0;
    this.playing = true;
    this.#scheduled = this.#from;
    this.#startedAt = this.#context.currentTime + 0.05; // time to set up the first piece
    this.#schedule();
    this.#tell();
  }

  pause() {
    if (!this.playing) return;
    this.#from = Math.round(this.position * this.rate);
    this.playing = false;
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    this.#tell();
  }

  seek(seconds) {
    const wasPlaying = this.playing;
    this.pause();
    this.#from = Math.round(Math.min(Math.max(0, seconds), this.seconds) * this.rate);
    if (wasPlaying) this.play();
    this.#tell();
  }

  #schedule() {
    if (this.#scheduled >= this.length) return;
    const piece = this.#room.slice(this.#scheduled, this.length);
    let when = this.#startedAt + (this.#scheduled - this.#from) / this.rate;
    if (when < this.#context.currentTime) {
      this.#startedAt += this.#context.currentTime - when; // the stream ran dry: the clock waits for it
      when = this.#context.currentTime;
    }
    const buffer = this.#context.createBuffer(1, piece.length, this.rate);
    buffer.copyToChannel(piece, 0);
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    source.addEventListener("ended", () => this.#over(source));
    source.start(when);
    this.#sources.add(source);
    this.#scheduled = this.length;
  }

  #over(source) {
    if (!this.#sources.delete(source) || this.#sources.size > 0 || !this.complete) return;
    this.#from = this.length;
    this.playing = false;
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

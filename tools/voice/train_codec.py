"""Trains the codec's decoder and code tables: codes to audio.

    python train_codec.py DATA OUT [--steps N] [--threads N]

A frame's audio comes one frame after its code, so that the causal decoder knows 20 ms of what follows. The loss is spectral
(four resolutions, three drawn a step) plus the waveform's, which the frame-locked pulses make meaningful. Some rows use two or
three of the four codebooks only.
"""

import numpy as np
import torch

import ragged
import training
from decoder import Decoder
from design import HOP, VOICES

ROWS, FRAMES = 8, 44  # of a batch
WARM_UP = 4  # frames at the start of a crop that do not count: what came before them is not known
SIZES = {2048: 128, 1024: 80, 512: 64, 256: 40}  # of the transforms, with their mel bands
WAVE = 0.5  # weight of the waveform's error
USED = [2, 2, 3, 4, 4, 4, 4, 4]


def mel_bands(size: int, bands: int, rate: int = 24000) -> torch.Tensor:
    """Triangular filters [bands, size / 2 + 1]."""
    hz = np.linspace(0, rate / 2, size // 2 + 1)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1)
    rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.tensor(np.maximum(0, np.minimum(rise, fall)), dtype=torch.float32)


class SpectralLoss:
    def __init__(self):
        self.windows = {n: torch.hann_window(n) for n in SIZES}
        self.bands = {n: mel_bands(n, m) for n, m in SIZES.items()}

    def magnitude(self, x, size):
        s = torch.stft(x, size, size // 4, size, self.windows[size], return_complex=True)
        return (s.real**2 + s.imag**2 + 1e-9).sqrt() * size**-0.5

    def __call__(self, y, x, sizes):
        total = 0
        for size in sizes:
            a, b = self.magnitude(y, size), self.magnitude(x, size)
            mel = (torch.log(self.bands[size] @ a + 1e-4) - torch.log(self.bands[size] @ b + 1e-4)).abs().mean()
            fine = (torch.log(a + 1e-4) - torch.log(b + 1e-4)).abs().mean()
            root = ((a - b) ** 2).sum((1, 2)).sqrt() / ((b**2).sum((1, 2)).sqrt() + 0.5)
            total = total + mel + 0.5 * fine + root.mean()
        return total / len(sizes)


def load(data):
    """Codes [frames, 4] and samples of all training audio, end to end."""
    codes, audio = [], []
    for voice in VOICES:
        stored = ragged.load(data / f"audio.{voice}.npz")
        lines = ragged.load(data / f"sentences.{voice}.npz", "line")["line"]
        place = {int(line[0]): i for i, line in enumerate(lines)}
        every = ragged.load(data / f"codes.sentences.{voice}.npz")["codes"]
        for line, wave in zip(stored["line"], stored["audio"], strict=True):
            codes.append(every[place[int(line[0])]])
            audio.append(wave)
    return np.concatenate(codes), np.concatenate(audio)


def main() -> None:
    args = training.arguments(__doc__, 12000)
    codes, audio = load(args.data)
    print(f"{len(codes) * HOP / 24000 / 3600:.2f} h of audio", flush=True)
    decoder = Decoder()
    decoder.start_tables(np.load(args.data / "codebooks.npz")["books"])
    loss_of = SpectralLoss()
    run = training.Run(args, "codec", decoder, 1.5e-3, (0.8, 0.98), save_every=250)
    decoder.train()
    for _ in run:
        starts = run.rng.integers(1, len(codes) - FRAMES, ROWS)
        batch = torch.from_numpy(np.stack([codes[s : s + FRAMES] for s in starts]).astype(np.int64))
        target = np.stack([audio[(s - 1) * HOP : (s - 1 + FRAMES) * HOP] for s in starts])
        target = torch.from_numpy(target.astype(np.float32) / 32768)
        made = decoder(batch, torch.from_numpy(run.rng.choice(USED, ROWS)))
        made, target = made[:, WARM_UP * HOP :], target[:, WARM_UP * HOP :]
        sizes = run.rng.permutation(list(SIZES))[:3].tolist()
        spectral = loss_of(made, target, sizes)
        wave = (made - target).abs().mean() / target.abs().mean()
        run.update(spectral + WAVE * wave, spectral=spectral, wave=wave)


if __name__ == "__main__":
    main()

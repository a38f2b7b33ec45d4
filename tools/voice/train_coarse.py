"""Trains the second stage: semantic tokens to codes 0 and 1.

    python train_coarse.py DATA OUT [--steps N] [--threads N]

Every row is one of Bark's windows, exactly: prefix of semantic tokens, infer token, history, new codes; with the voice's
history prompt but for a few. All codes of the row count in the loss. Some of the history is replaced by other codes, so
that the model trusts the phones more than what it said before.
"""

import numpy as np
import torch
import torch.nn.functional as F

import ragged
import training
from coarse import N_INPUTS, UNIT_CODE, UNIT_INFER, UNIT_PAD, UNIT_VOICE, Coarse
from design import (
    COARSE_HISTORY, COARSE_PREFIX, COARSE_WINDOW, CODES, DROPPED_HISTORY, N_PHONES, PER_SEMANTIC, PRESET_FRAMES,
    PRESET_TOKENS, SEMANTIC_HISTORY, VOICES, pitch_code,
)  # fmt: skip
from train_semantic import expand

POSITIONS = 5200  # of a batch
NO_VOICE = 0.08
NOISE = 0.06  # share of history codes replaced
NOISY_PHONES = 0.01  # share of semantic tokens replaced
SECOND = 0.5  # weight of codebook 1's loss


def silence(data) -> dict[str, np.ndarray]:
    """For each voice the codes [PRESET_FRAMES, 4] of its history prompt: the commonest frame that starts an utterance."""
    out = {}
    for voice in VOICES:
        codes = ragged.load(data / f"codes.sentences.{voice}.npz")["codes"]
        starts, counts = np.unique(np.stack([c[0] for c in codes]), axis=0, return_counts=True)
        frame = starts[counts.argmax()].copy()
        frame[1] = pitch_code(voice, 0, 0)
        out[voice] = np.tile(frame, (PRESET_FRAMES, 1))
    return out


class Utterances:
    """Training forms: units [n] and interleaved codes [4 n] of every utterance of a set."""

    def __init__(self, data, name: str):
        self.preset = {v: interleave(c) for v, c in silence(data).items()}
        self.units, self.codes, self.voices = [], [], []
        for voice in VOICES:
            stored = ragged.load(data / f"{name}.{voice}.npz", "phone", "length", "letter")
            codes = ragged.load(data / f"codes.{name}.{voice}.npz")["codes"]
            for phone, length, letter, c in zip(stored["phone"], stored["length"], stored["letter"], codes, strict=True):
                tokens = expand(phone, length, letter)
                self.units.append(tokens[:, 0] * N_PHONES + tokens[:, 1])
                self.codes.append(interleave(c))
                self.voices.append(voice)
        self.order = np.argsort([len(u) for u in self.units], kind="stable")

    def window(self, i: int, rng) -> np.ndarray:
        """A window of utterance i: prefix, infer token, history and new codes."""
        voice, units, codes = self.voices[i], self.units[i], self.codes[i]
        if voice == VOICES[0] and rng.random() < NO_VOICE:
            base, history = 0, np.zeros(0, np.int64)
        else:
            base, history = PRESET_TOKENS, self.preset[voice][:-DROPPED_HISTORY]
            units = np.r_[np.full(base, UNIT_VOICE + VOICES.index(voice)), units]
        # The window with the longest history below the cut holds all the earlier ones.
        last = (len(codes) - 1) // COARSE_WINDOW
        whole = min(last, (COARSE_HISTORY - len(history)) // COARSE_WINDOW)
        k = whole if last == whole or rng.random() < 0.5 else int(rng.integers(whole + 1, last + 1))
        done = k * COARSE_WINDOW
        at = base + done // PER_SEMANTIC
        prefix = units[max(0, at - SEMANTIC_HISTORY) :][:COARSE_PREFIX]
        said = np.r_[history, codes[:done]][-COARSE_HISTORY:]
        new = codes[done : done + COARSE_WINDOW]
        pad = np.full(COARSE_PREFIX - len(prefix), UNIT_PAD)
        return np.concatenate([prefix, pad, [UNIT_INFER], said, new])


def interleave(codes: np.ndarray) -> np.ndarray:
    return (codes[:, :2].astype(np.int64) + [UNIT_CODE, UNIT_CODE + CODES]).reshape(-1)


def collate(windows: list[np.ndarray]) -> torch.Tensor:
    """[B, n]; -1 after a row's end."""
    n = max(map(len, windows))
    n += (n - COARSE_PREFIX - 1) % 2
    out = np.full((len(windows), n), -1, np.int64)
    for row, window in zip(out, windows, strict=True):
        row[: len(window)] = window
    return torch.from_numpy(out)


def corrupt(tokens: torch.Tensor, generator) -> torch.Tensor:
    """Inputs: the tokens with noise, and pads after the ends."""
    n = tokens.shape[1]
    book = (torch.arange(n) - COARSE_PREFIX - 1) % 2
    # A wrong envelope code is another frame's; a wrong pitch code is any: both from the batch's own codes.
    codes = tokens[:, COARSE_PREFIX + 1 :]
    known = [codes[:, b::2][codes[:, b::2] >= 0] for b in (0, 1)]
    drawn = torch.stack([k[torch.randint(len(k), tokens.shape, generator=generator)] for k in known])
    other = torch.where(book == 0, drawn[0], drawn[1])
    hit = torch.rand(tokens.shape, generator=generator) < NOISE
    hit[:, : COARSE_PREFIX + 1] = False
    phones = (tokens >= 0) & (tokens < UNIT_VOICE) & (torch.rand(tokens.shape, generator=generator) < NOISY_PHONES)
    x = torch.where(hit, other, tokens)
    x = torch.where(phones, torch.randint(0, UNIT_VOICE, tokens.shape, generator=generator), x)
    return torch.where(tokens < 0, UNIT_PAD, x)


def losses(model, tokens, inputs):
    """Mean losses of the two codebooks, and the share of right envelope codes."""
    with torch.autocast("cpu", torch.bfloat16):
        h = model(inputs)[:, COARSE_PREFIX:-1]
        first, second = model.logits(h[:, 0::2], 0), model.logits(h[:, 1::2], 1)
    y = tokens[:, COARSE_PREFIX + 1 :]
    y0, y1 = y[:, 0::2], y[:, 1::2]
    y0 = torch.where(y0 < 0, -1, y0 - UNIT_CODE).reshape(-1)
    y1 = torch.where(y1 < 0, -1, y1 - UNIT_CODE - CODES).reshape(-1)
    first, second = first.flatten(0, 1)[y0 >= 0].float(), second.flatten(0, 1)[y1 >= 0].float()
    y0, y1 = y0[y0 >= 0], y1[y1 >= 0]
    right = (first.argmax(-1) == y0).float().mean()
    return F.cross_entropy(first, y0), F.cross_entropy(second, y1), right


def draw(data: Utterances, rng) -> torch.Tensor:
    """Windows of utterances of like length."""
    order = data.order
    at = int(rng.integers(len(order)))
    n = COARSE_PREFIX + 1 + min(len(data.codes[order[at]]) + 8, COARSE_HISTORY + COARSE_WINDOW)
    rows = max(2, POSITIONS // n)
    near = np.clip(at + rng.choice(np.arange(-200, 201), rows, replace=False), 0, len(order) - 1)
    return collate([data.window(order[i], rng) for i in near])


def main() -> None:
    args = training.arguments(__doc__, 12000)
    data, check = Utterances(args.data, "sentences"), Utterances(args.data, "held_out")
    fixed = np.random.default_rng(0)
    checks = [draw(check, fixed) for _ in range(12)]
    model = Coarse()
    assert N_INPUTS == model.table.num_embeddings
    run = training.Run(args, "coarse", model, 2e-3, (0.9, 0.95), decay=0.1)
    generator = torch.Generator().manual_seed(args.seed + run.step)
    for _ in run:
        tokens = draw(data, run.rng)
        first, second, right = losses(model, tokens, corrupt(tokens, generator))
        run.update(first + SECOND * second, envelope=first, pitch=second, right=right)
        if run.step % 500 == 0 or run.step == run.steps:
            model.eval()
            with torch.no_grad():
                means = np.mean([[float(z) for z in losses(model, t, t.where(t >= 0, torch.tensor(UNIT_PAD)))] for t in checks], 0)
            run.log(held_out_envelope=means[0], held_out_pitch=means[1], held_out_right=means[2])
            model.train()


if __name__ == "__main__":
    main()

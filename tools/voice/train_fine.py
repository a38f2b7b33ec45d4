"""Trains the third stage: codes 2 and 3 from codes 0 and 1.

    python train_fine.py DATA OUT [--steps N] [--threads N]

Windows as Bark makes them: the voice's frames of silence, an utterance, unknown codes to the end; or the middle of a long
utterance, where a later window goes over half of the frames again. Some coarse codes are wrong, as they will be.
"""

import numpy as np
import torch
import torch.nn.functional as F

import ragged
import training
from design import CODES, FINE_HISTORY, FINE_WINDOW, N_CODES, N_COARSE, VOICES
from fine import UNKNOWN, Fine
from train_coarse import silence

ROWS = 12
NOISE = 0.05


class Windows:
    def __init__(self, data, name: str):
        self.items = []
        presets = silence(data)
        for voice in VOICES:
            for codes in ragged.load(data / f"codes.{name}.{voice}.npz")["codes"]:
                self.items.append(np.concatenate([presets[voice], codes]).astype(np.int64))

    def draw(self, rng, book: int) -> tuple[np.ndarray, np.ndarray]:
        """codes [FINE_WINDOW, N_CODES] and the right codes [FINE_WINDOW] of the book, -1 where they do not count."""
        every = self.items[int(rng.integers(len(self.items)))]
        start = max(0, len(every) - FINE_WINDOW) if rng.random() < 0.5 else 0
        part = every[start : start + FINE_WINDOW]
        n = len(part)
        codes = np.full((FINE_WINDOW, N_CODES), UNKNOWN, np.int64)
        codes[:n] = part
        right = np.full(FINE_WINDOW, -1, np.int64)
        known = FINE_HISTORY if start else 0  # frames whose fine codes are settled
        right[known:n] = part[known:, book]
        codes[known:n, book:] = UNKNOWN
        if start and rng.random() < 0.5:  # frames that the window before has filled, with its mistakes
            filled = int(rng.integers(known, n))
            old = np.where(rng.random((filled - known, 1)) < 0.4, part[rng.integers(0, n, filled - known), book:], part[known:filled, book:])
            codes[known:filled, book:] = old
        noisy = rng.random((n, N_COARSE)) < NOISE
        codes[:n, :N_COARSE] = np.where(noisy, codes[rng.permutation(n), :N_COARSE], codes[:n, :N_COARSE])
        return codes, right

    def batch(self, rng, book: int, rows: int):
        drawn = [self.draw(rng, book) for _ in range(rows)]
        return [torch.from_numpy(np.stack(z)) for z in zip(*drawn, strict=True)]


def loss_of(model, codes, right, book: int):
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(codes, book)
    return F.cross_entropy(scores.float().reshape(-1, CODES), right.reshape(-1), ignore_index=-1)


def main() -> None:
    args = training.arguments(__doc__, 4000)
    data, check = Windows(args.data, "sentences"), Windows(args.data, "held_out")
    books = range(N_COARSE, N_CODES)
    fixed = np.random.default_rng(0)
    checks = {book: check.batch(fixed, book, 48) for book in books}
    model = Fine()
    run = training.Run(args, "fine", model, 2e-3, (0.9, 0.95), decay=0.1)
    for _ in run:
        book = int(run.rng.choice(books))
        loss = loss_of(model, *data.batch(run.rng, book, ROWS), book)
        run.update(loss, **{f"code{book}": loss})
        if run.step % 500 == 0 or run.step == run.steps:
            with torch.no_grad():
                run.log(**{f"held_out_code{b}": float(loss_of(model, *checks[b], b)) for b in books})


if __name__ == "__main__":
    main()

"""The coarse and fine stages and the decoder as trained, run one after the other: for judging a stage apart from the first.

No windows slide here, so utterances are cut where the first windows end; barkd and transformers run the whole procedure.
"""

from pathlib import Path

import numpy as np
import torch

import ragged
from coarse import UNIT_CODE, UNIT_INFER, UNIT_PAD, UNIT_VOICE, Coarse
from decoder import Decoder
from design import (
    CODES, COARSE_HISTORY, COARSE_PREFIX, DROPPED_HISTORY, FINE_WINDOW, N_CODES, N_COARSE, N_PHONES, PER_SEMANTIC,
    PRESET_FRAMES, PRESET_TOKENS, VOICES,
)  # fmt: skip
from export import load
from fine import UNKNOWN, Fine
from train_coarse import interleave, silence
from train_semantic import expand


class Stages:
    def __init__(self, data: Path, runs: Path, name: str = "held_out", temperature: float = 0.45):
        self.coarse = load(Coarse(), runs / "coarse" / "coarse.pt")
        self.fine = load(Fine(), runs / "fine" / "fine.pt")
        self.decoder = load(Decoder(), runs / "codec" / "codec.pt")
        self.preset = silence(data)
        self.stored = {v: ragged.load(data / f"{name}.{v}.npz", "phone", "length", "letter") for v in VOICES}
        self.temperature = temperature
        torch.manual_seed(0)

    def units(self, voice: str, i: int) -> np.ndarray:
        tokens = expand(*(self.stored[voice][k][i] for k in ("phone", "length", "letter")))
        return tokens[:, 0] * N_PHONES + tokens[:, 1]

    @torch.no_grad()
    def coarse_codes(self, voice: str, units: np.ndarray) -> np.ndarray:
        """Codes [frames, 2] of semantic units; the history prompt is the voice's."""
        history = interleave(self.preset[voice])[:-DROPPED_HISTORY]
        n = min(len(units) * PER_SEMANTIC, COARSE_HISTORY - len(history))
        prefix = np.r_[np.full(PRESET_TOKENS, UNIT_VOICE + VOICES.index(voice)), units][:COARSE_PREFIX]
        pad = np.full(COARSE_PREFIX - len(prefix), UNIT_PAD)
        prompt = torch.from_numpy(np.concatenate([prefix, pad, [UNIT_INFER], history]))[None]
        cache, out = {}, []
        h = self.coarse(prompt, cache)[:, -1]
        at = prompt.shape[1]
        for step in range(n):
            book = step % N_COARSE
            scores = self.coarse.logits(h, book)[0, :CODES] / self.temperature
            code = int(torch.multinomial(scores.softmax(-1), 1))
            out.append(code)
            h = self.coarse(torch.tensor([[UNIT_CODE + book * CODES + code]]), cache, at)[:, -1]
            at += 1
        return np.array(out).reshape(-1, N_COARSE)

    @torch.no_grad()
    def fine_codes(self, voice: str, coarse: np.ndarray) -> torch.Tensor:
        """Codes [frames, N_CODES]; the likeliest of each."""
        codes = torch.full((1, FINE_WINDOW, N_CODES), UNKNOWN)
        n = min(len(coarse), FINE_WINDOW - PRESET_FRAMES)
        codes[0, :PRESET_FRAMES] = torch.from_numpy(self.preset[voice].astype(np.int64))
        codes[0, PRESET_FRAMES : PRESET_FRAMES + n, :N_COARSE] = torch.from_numpy(coarse[:n])
        for book in range(N_COARSE, N_CODES):
            codes[0, PRESET_FRAMES:, book] = self.fine(codes, book)[0, PRESET_FRAMES:].argmax(-1)
        return codes[:, PRESET_FRAMES : PRESET_FRAMES + n]

    @torch.no_grad()
    def speak(self, voice: str, i: int) -> np.ndarray:
        """Samples made from the true semantic tokens of utterance i."""
        codes = self.fine_codes(voice, self.coarse_codes(voice, self.units(voice, i)))
        return self.decoder(codes)[0].numpy()

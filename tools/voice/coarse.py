"""The second stage in training form: semantic tokens to codes 0 and 1, interleaved."""

import math

import torch
from torch import nn

from design import (
    COARSE_HISTORY, COARSE_INFER, COARSE_PAD, COARSE_PREFIX, COARSE_VOCAB, COARSE_WINDOW, CODES, FRAME_RATE, LETTERS,
    N_CODES, N_COARSE, N_UNITS, SEMANTIC_RATE, SEMANTIC_VOCAB, VOICE_TOKEN, VOICES,
)  # fmt: skip
from gpt import Trunk, fourier

WIDTH, LAYERS, HEADS = 256, 5, 2
POSITIONS = COARSE_PREFIX + 1 + COARSE_HISTORY + COARSE_WINDOW
# Inputs of the training form: units without their letters, voices, codes, pad, infer.
UNIT_VOICE = N_UNITS
UNIT_CODE = UNIT_VOICE + len(VOICES)
UNIT_PAD = UNIT_CODE + N_COARSE * CODES
UNIT_INFER = UNIT_PAD + 1
N_INPUTS = UNIT_INFER + 1
# Ids that stay legal for codebook 1 in transformers: the pad and the infer token after its codes.
N_EXTRA = COARSE_VOCAB - COARSE_PAD
assert N_CODES >= N_COARSE == 2


class Coarse(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = Trunk(WIDTH, LAYERS, HEADS, POSITIONS)
        self.table = nn.Embedding(N_INPUTS, WIDTH)
        self.head = nn.Linear(WIDTH, N_COARSE * CODES + N_EXTRA, bias=False)
        nn.init.normal_(self.table.weight, std=0.05)
        nn.init.normal_(self.head.weight, std=0.02)
        self._start_in_time()

    @torch.no_grad()
    def _start_in_time(self) -> None:
        """Lets attention find its phone from the first step: positions carry Fourier features of their moment, and the
        heads of layer 0 start by looking in the prefix at the token of the code to come and at the one after it."""
        size, waves, amplitude, gain = WIDTH // HEADS, 32, 0.14, 0.8
        fast = 2 * math.pi / torch.logspace(math.log10(0.1), math.log10(12.0), waves)
        n = 2 * waves
        here, there = n, n + 1  # dimensions that tell codes and prefix apart
        prefix = (torch.arange(float(COARSE_PREFIX)) + 0.5) / SEMANTIC_RATE
        # Position c after the infer token predicts code c + 1; after a voice's history a frame is missing.
        frame = torch.arange(POSITIONS - COARSE_PREFIX) // N_COARSE + 1
        codes = (frame + 0.5) / FRAME_RATE
        position = self.trunk.position.weight
        position.normal_(std=0.01)
        position[:, : n + 2] = 0
        position[:COARSE_PREFIX, :n] = fourier(prefix, fast) * amplitude
        position[COARSE_PREFIX:, :n] = fourier(codes, fast) * amplitude
        position[COARSE_PREFIX:, here] = amplitude
        position[:COARSE_PREFIX, there] = amplitude
        self.table.weight[:, : n + 2] = 0
        projection = self.trunk.layers[0].att_proj.weight
        for head in range(HEADS):
            query = projection[head * size : (head + 1) * size]
            key = projection[WIDTH + head * size : WIDTH + (head + 1) * size]
            query *= 0.15
            key *= 0.15
            turn = torch.eye(n)
            for i, f in enumerate(fast.tolist()):
                c, s = math.cos(f * head / SEMANTIC_RATE), math.sin(f * head / SEMANTIC_RATE)
                turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[c, -s], [s, c]])
            key[:n, :n] += torch.eye(n) * gain
            query[:n, :n] += turn * gain
            key[n, there] += 2
            query[n, here] += 5

    def forward(self, tokens, cache=None, start: int = 0):
        """tokens [B, n] in the training form, from position start on; the last layer's output [B, n, d]."""
        positions = torch.arange(start, start + tokens.shape[1])
        return self.trunk(self.table(tokens), positions, cache)

    def logits(self, h, book: int):
        """Scores of a codebook's codes; for codebook 1 those of the ids after it too."""
        weight = self.head.weight
        return h @ (weight[:CODES] if book == 0 else weight[CODES:]).t()

    @torch.no_grad()
    def plain_tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Bark's input table and head, both [COARSE_VOCAB, d]."""
        unit = torch.arange(N_UNITS).repeat_interleave(LETTERS)
        table = torch.zeros(COARSE_VOCAB, WIDTH)
        table[:VOICE_TOKEN] = self.table.weight[unit]
        table[VOICE_TOKEN:] = self.table.weight[UNIT_VOICE:]
        head = torch.zeros(COARSE_VOCAB, WIDTH)
        head[SEMANTIC_VOCAB:] = self.head.weight
        assert COARSE_INFER == COARSE_VOCAB - 1
        return table, head

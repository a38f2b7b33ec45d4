"""The second stage in training form: semantic tokens to codes 0 and 1, interleaved."""

import torch
from torch import nn

from design import (
    COARSE_HISTORY, COARSE_INFER, COARSE_PAD, COARSE_PREFIX, COARSE_VOCAB, COARSE_WINDOW, CODES, FRAME_RATE, LETTERS,
    N_CODES, N_COARSE, N_UNITS, SEMANTIC_RATE, SEMANTIC_VOCAB, VOICE_TOKEN, VOICES,
)  # fmt: skip
from gpt import Trunk, time_features

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
        nn.init.normal_(self.table.weight, std=0.03)
        nn.init.normal_(self.head.weight, std=0.02)
        self._start_in_time()

    @torch.no_grad()
    def _start_in_time(self) -> None:
        """Positions of the same moment look alike in the prefix and in the codes, and layer 0 starts by matching them."""
        prefix = (torch.arange(float(COARSE_PREFIX)) + 0.5) / SEMANTIC_RATE
        frames = (torch.arange(POSITIONS - COARSE_PREFIX - 1) // N_COARSE + 0.5) / FRAME_RATE
        moments = torch.cat([prefix, torch.zeros(1), frames])
        self.trunk.position.weight[:] = time_features(moments, WIDTH, 0.05, 30.0) * 0.05
        projection = self.trunk.layers[0].att_proj.weight
        projection[WIDTH : 2 * WIDTH] = projection[:WIDTH]

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

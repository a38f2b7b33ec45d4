"""The third stage in training form: codes 2 and 3 from codes 0 and 1, all frames of a window at once."""

import torch
from torch import nn

from design import CODES, FINE_WINDOW, FRAME_RATE, N_CODES
from gpt import Trunk, time_features

WIDTH, LAYERS, HEADS = 160, 4, 2
UNKNOWN = CODES
ROWS = CODES + 32  # of the tables


class Fine(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = Trunk(WIDTH, LAYERS, HEADS, FINE_WINDOW, causal=False)
        self.tables = nn.ModuleList([nn.Embedding(ROWS, WIDTH) for _ in range(N_CODES)])
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)
        with torch.no_grad():
            moments = torch.arange(float(FINE_WINDOW)) / FRAME_RATE
            self.trunk.position.weight[:] = time_features(moments, WIDTH, 0.05, 30.0) * 0.05

    def forward(self, codes, book: int):
        """codes [B, FINE_WINDOW, N_CODES]; scores [B, FINE_WINDOW, CODES] of a codebook. Its table is its head too."""
        x = sum(self.tables[i](codes[..., i]) for i in range(book + 1))
        h = self.trunk(x, torch.arange(codes.shape[1]))
        return h @ self.tables[book].weight[:CODES].t()

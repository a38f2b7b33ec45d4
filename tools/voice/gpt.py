"""Bark's transformer for training: pre-norm GPT-2 without biases, in bfloat16 where autocast says so."""

import math

import torch
import torch.nn.functional as F
from torch import nn

_masks = {}


def causal_mask(n: int, dtype) -> torch.Tensor:
    if (n, dtype) not in _masks:
        _masks[n, dtype] = torch.full((n, n), -3e4).triu(1).to(dtype)[None]
    return _masks[n, dtype]


class Block(nn.Module):
    """x [B, T, d]. Names are those of transformers' BarkBlock, with mlp_in and mlp_out for mlp.in_proj and mlp.out_proj."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.layernorm_1 = nn.LayerNorm(width, bias=not causal)
        self.layernorm_2 = nn.LayerNorm(width, bias=not causal)
        self.att_proj = nn.Linear(width, 3 * width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.mlp_in = nn.Linear(width, 4 * width, bias=False)
        self.mlp_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x, cache=None):
        """cache, a dict, collects keys and values of all earlier calls."""
        b, t, d = x.shape
        size = d // self.heads
        q, k, v = self.att_proj(self.layernorm_1(x)).view(b, t, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        if cache is not None:
            if self in cache:
                k, v = torch.cat([cache[self][0], k], 2), torch.cat([cache[self][1], v], 2)
            cache[self] = k, v
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal and t == k.shape[2] and t > 1)
        else:
            # Plain products: several times faster than the fused kernel here, forward and backward.
            q, k, v = (z.reshape(b * self.heads, t, size) for z in (q, k, v))
            if self.causal:
                mask = causal_mask(t, q.dtype).expand(b * self.heads, t, t)
                scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=size**-0.5)
            else:
                scores = torch.bmm(q * size**-0.5, k.transpose(1, 2))
            y = torch.bmm(torch.softmax(scores, -1, dtype=scores.dtype), v).view(b, self.heads, t, size)
        x = x + self.out_proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.layernorm_2(x))))


class Trunk(nn.Module):
    """Positions, blocks and the final norm; embeddings and heads are the stages' own."""

    def __init__(self, width: int, layers: int, heads: int, positions: int, causal: bool = True):
        super().__init__()
        self.position = nn.Embedding(positions, width)
        self.layers = nn.ModuleList([Block(width, heads, causal) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, bias=not causal)
        for block in self.layers:
            for linear in (block.att_proj, block.mlp_in):
                nn.init.normal_(linear.weight, std=0.7 * width**-0.5)
            for linear in (block.out_proj, block.mlp_out):
                nn.init.normal_(linear.weight, std=(2 * layers * linear.weight.shape[1]) ** -0.5)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, x, positions, cache=None):
        x = x + self.position(positions)
        for block in self.layers:
            x = block(x, cache)
        return self.norm(x)


def fourier(t: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
    """cos and sin [n, 2 · frequencies] of times t [n]."""
    angle = t[:, None] * frequencies
    return torch.stack([angle.cos(), angle.sin()], -1).flatten(1)


def time_features(t: torch.Tensor, dims: int, shortest: float, longest: float) -> torch.Tensor:
    """Sinusoids of seconds, so that positions of the same moment in different streams look alike."""
    frequencies = torch.exp(torch.linspace(math.log(2 * math.pi / longest), math.log(2 * math.pi / shortest), dims // 2))
    return fourier(t, frequencies)

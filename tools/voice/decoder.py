"""EnCodec's decoder in the form in which a CPU trains it fastest, with the code tables in front.

The same function as transformers' EncodecDecoder but for the first samples (zeros before the start in place of reflection).
Convolutions run as 2-d ones, channels last, in bfloat16; a transposed convolution is one with two taps and a reshape.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from design import CODES, N_CODES, PHASES, PITCH_RANGE, RATIOS, VOICES, pitch_code

FILTERS = 12
HIDDEN = 64
KERNEL = 7
PITCH_DIMS = 16
LAST = torch.channels_last


class Elu(torch.autograd.Function):
    """torch's own elu is many times slower than exp on these CPUs."""

    @staticmethod
    def forward(ctx, x):
        y = torch.maximum(x, x.clamp(max=0).exp_().sub_(1))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * y.clamp(max=0).add_(1)


class Conv(nn.Module):
    """Causal convolution, x [B, C, 1, T]."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel)

    def forward(self, x):
        k = self.conv.kernel_size[0]
        weight = self.conv.weight.unsqueeze(2).to(x.dtype).contiguous(memory_format=LAST)
        y = F.conv2d(x, weight, self.conv.bias.to(x.dtype), padding=(0, k - 1))
        return y[..., : x.shape[-1]]


class Upsample(nn.Module):
    """Transposed convolution of kernel 2 · ratio, cut to T · ratio."""

    def __init__(self, inputs: int, outputs: int, ratio: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, 2 * ratio, ratio)
        self.ratio = ratio

    def forward(self, x):
        r, w = self.ratio, self.conv.weight
        inputs, outputs, _ = w.shape
        taps = torch.stack([w[:, :, r:], w[:, :, :r]], -1)  # of the frame before, of this one
        taps = taps.permute(2, 1, 0, 3).reshape(r * outputs, inputs, 1, 2)
        taps = taps.to(x.dtype).contiguous(memory_format=LAST)
        y = F.conv2d(x, taps, self.conv.bias.to(x.dtype).repeat(r), padding=(0, 1))[..., : x.shape[-1]]
        b, _, _, t = y.shape
        return y.permute(0, 2, 3, 1).reshape(b, 1, t * r, outputs).permute(0, 3, 1, 2)


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.first = Conv(channels, channels // 2, 3)
        self.second = Conv(channels // 2, channels, 1)
        self.shortcut = Conv(channels, channels, 1)

    def forward(self, x):
        return self.shortcut(x) + self.second(Elu.apply(self.first(Elu.apply(x))))


class Decoder(nn.Module):
    """Codes [B, T, N_CODES] to samples [B, T · HOP]."""

    def __init__(self):
        super().__init__()
        width = FILTERS * 2 ** len(RATIOS)
        self.tables = nn.ParameterList([nn.Parameter(torch.zeros(CODES, HIDDEN)) for _ in range(N_CODES)])
        self.first = Conv(HIDDEN, width, KERNEL)
        self.lstm = nn.LSTM(width, width, 1)
        self.ups, self.residuals = nn.ModuleList(), nn.ModuleList()
        for ratio in RATIOS:
            self.ups.append(Upsample(width, width // 2, ratio))
            self.residuals.append(Residual(width // 2))
            width //= 2
        self.last = Conv(width, 1, KERNEL)

    def forward(self, codes, used=None):
        """used [B]: how many codebooks count in each row; all, if left out."""
        x = 0
        for q, table in enumerate(self.tables):
            part = F.embedding(codes[..., q], table)
            x = x + (part if used is None else part * (used > q).view(-1, 1, 1))
        x = x.bfloat16() if self.training else x
        x = self.first(x.transpose(1, 2).unsqueeze(2).contiguous(memory_format=LAST))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            h = x.squeeze(2).permute(2, 0, 1)
            h = self.lstm(h)[0] + h
        x = h.permute(1, 2, 0).unsqueeze(2).to(x.dtype).contiguous(memory_format=LAST)
        for up, residual in zip(self.ups, self.residuals, strict=True):
            x = residual(up(Elu.apply(x)))
        return self.last(Elu.apply(x)).float().reshape(len(codes), -1)

    @torch.no_grad()
    def start_tables(self, books: np.ndarray) -> None:
        """Envelope codes start as their centroids, pitch codes as pitch, phase, voicing and voice; apart from each other."""
        shape = HIDDEN - PITCH_DIMS
        generator = torch.Generator().manual_seed(2)
        mix = torch.linalg.qr(torch.randn(books.shape[2], books.shape[2], generator=generator))[0][:, :shape]
        for table, book in zip([self.tables[0], *self.tables[2:]], torch.from_numpy(books), strict=True):
            table[:, :shape] = book @ mix
        self.tables[1][:, shape:] = _pitch_table()


def _pitch_table() -> torch.Tensor:
    table = torch.zeros(CODES, PITCH_DIMS)
    for v, voice in enumerate(VOICES):
        low, high = PITCH_RANGE[voice]
        side = 1.0 if v else -1.0
        table[pitch_code(voice, 0, 0), :2] = torch.tensor([-1.0, side])
        for level in range(low, high + 1):
            for phase in range(PHASES):
                row = [1.0, side, (level - (low + high) / 2) / (high - low) * 2]
                for k in (1, 2, 3):
                    row += [math.cos(2 * math.pi * k * phase / PHASES), math.sin(2 * math.pi * k * phase / PHASES)]
                for k in (1, 2, 3):
                    turn = 2 * math.pi * k * level / 12
                    row += [math.cos(turn), math.sin(turn)]
                row.append(math.log(level / 24))
                table[pitch_code(voice, level, phase)] = torch.tensor(row[:PITCH_DIMS])
    return table

"""The first stage in training form: text to semantic tokens, with factorised tables that export folds into plain ones."""

import math

import torch
from torch import nn

from design import EOS, LETTERS, MAX_SEMANTIC, MAX_TEXT, N_PHONES, N_UNITS, SEMANTIC_IN, SEMANTIC_INFER, SEMANTIC_OUT
from design import TEXT_OFFSET, TEXT_PAD, TEXT_VOCAB, VOICE_TOKEN, VOICES
from gpt import Trunk, fourier

WIDTH, LAYERS, HEADS = 256, 5, 4
ONSET, CONTINUATION, END = 0, 1, 2  # states of a target; -1: none
LETTER_STRIDE = 0.55  # letters a semantic token, about; slow position features only
N_LOGITS = N_UNITS + 2 * LETTERS + 2  # units, letters of onsets and of continuations, end, voice tokens (never)


class Semantic(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = Trunk(WIDTH, LAYERS, HEADS, MAX_TEXT + MAX_SEMANTIC)
        self.text = nn.Embedding(len(TEXT_VOCAB) + 1, WIDTH)  # the last is the pad
        self.voice = nn.Embedding(len(VOICES), WIDTH)
        self.infer = nn.Parameter(torch.randn(WIDTH) * 0.05)
        self.unit = nn.Embedding(N_UNITS, WIDTH)
        self.letter = nn.Embedding(2 * LETTERS, WIDTH)
        self.head = nn.Linear(WIDTH, N_LOGITS, bias=False)
        for table in (self.text, self.voice, self.unit, self.letter):
            nn.init.normal_(table.weight, std=0.05)
        nn.init.normal_(self.head.weight, std=0.02)
        self._start_reading()

    @torch.no_grad()
    def _start_reading(self) -> None:
        """Lets attention read along from the first step: text positions and pointers share Fourier features of the index
        modulo LETTERS, and head h of layer 0 starts by looking h letters ahead of the pointer."""
        size, harmonics, amplitude, gain = WIDTH // HEADS, LETTERS // 2 - 1, 0.14, 0.75
        fast = torch.arange(1, harmonics + 1) * 2 * math.pi / LETTERS
        slow = 2 * math.pi / torch.tensor([400.0, 250, 180, 140])
        n, n_slow = 2 * harmonics, 2 * harmonics + 8
        index = torch.arange(float(MAX_TEXT))
        guess = torch.cat([index, torch.zeros(1), torch.arange(MAX_SEMANTIC - 1) * LETTER_STRIDE])
        position = self.trunk.position.weight
        position.normal_(std=0.01)
        for table in (self.text, self.voice, self.unit):
            table.weight[:, :n_slow] = 0
        self.infer[:n_slow] = 0
        position[:, :n_slow] = 0
        position[:MAX_TEXT, :n] = fourier(index, fast) * amplitude
        position[MAX_TEXT, :n] = fourier(torch.zeros(1), fast)[0] * amplitude
        position[:, n:n_slow] = fourier(guess, slow) * amplitude
        pointers = fourier(torch.arange(float(LETTERS)), fast) * amplitude
        self.letter.weight[:, :n] = torch.cat([pointers, pointers])
        self.letter.weight[:, n:n_slow] = 0
        projection = self.trunk.layers[0].att_proj.weight
        for head in range(HEADS):
            query = projection[head * size : (head + 1) * size]
            key = projection[WIDTH + head * size : WIDTH + (head + 1) * size]
            query *= 0.15
            key *= 0.15
            turn = torch.eye(size)
            for i, f in enumerate(fast.tolist()):
                c, s = math.cos(f * head), math.sin(f * head)
                turn[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor([[c, -s], [s, c]])
            key[:, :size] += torch.eye(size) * gain
            query[:, :size] += turn * gain

    def embed_text(self, text, voice):
        """text [B, n] ids with the pad as the last id; voice [B], -1 for none."""
        x = self.text(text)
        spoken = self.voice(voice.clamp(min=0)) * (voice >= 0)[:, None]
        x = torch.cat([x[:, :2] + spoken[:, None], x[:, 2:]], 1)
        return x

    def embed_tokens(self, tokens):
        """tokens [B, n, 3]: state (-1: the infer token), phone, letter."""
        state = tokens[..., 0].clamp(min=0)
        x = self.unit(state * N_PHONES + tokens[..., 1]) + self.letter(state * LETTERS + tokens[..., 2])
        return torch.where(tokens[..., :1] < 0, self.infer, x)

    def logits(self, h):
        """phones [.., 2, P], letters [.., 2, LETTERS], end [..], voice token [..]."""
        y = self.head(h).float()
        phones, letters, rest = y.split([N_UNITS, 2 * LETTERS, 2], -1)
        return phones.unflatten(-1, (2, N_PHONES)), letters.unflatten(-1, (2, LETTERS)), rest[..., 0], rest[..., 1]

    def forward(self, text, voice, tokens):
        n = text.shape[1]
        x = torch.cat([self.embed_text(text, voice), self.embed_tokens(tokens)], 1)
        positions = torch.cat([torch.arange(n), MAX_TEXT + torch.arange(tokens.shape[1])])
        return self.logits(self.trunk(x, positions)[:, n:])

    @torch.no_grad()
    def plain_tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Bark's input table [SEMANTIC_IN, d] and head [SEMANTIC_OUT, d]: the same function, exactly."""
        unit = torch.arange(N_UNITS).repeat_interleave(LETTERS)
        letter = torch.arange(LETTERS).repeat(N_UNITS) + unit // N_PHONES * LETTERS
        table = torch.zeros(SEMANTIC_IN, WIDTH)
        table[:VOICE_TOKEN] = self.unit.weight[unit] + self.letter.weight[letter]
        table[VOICE_TOKEN:EOS] = self.voice.weight
        table[TEXT_OFFSET : TEXT_PAD + 1] = self.text.weight
        table[SEMANTIC_INFER] = self.infer
        w = self.head.weight
        head = torch.zeros(SEMANTIC_OUT, WIDTH)
        head[:VOICE_TOKEN] = w[unit] + w[N_UNITS + letter]
        head[VOICE_TOKEN:EOS] = w[N_LOGITS - 1]
        head[EOS] = w[N_LOGITS - 2]
        return table, head


def joint(phones, letters, end, never):
    """Scores [.., 4] of the four kinds of token: onset, continuation, end, voice."""
    both = phones.logsumexp(-1) + letters.logsumexp(-1)
    return torch.stack([both[..., 0], both[..., 1], end, never + math.log(len(VOICES))], -1)

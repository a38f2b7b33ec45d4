"""Designs the codes and writes every utterance in them.

    python codes.py DATA

Codebook 0 quantises the spectral envelope of a frame (mel-cepstra of both halves, less the voice's mean), codebooks 2 and
3 what is left, codebook 1 is pitch and phase. Nothing here is learned with the decoder, so the codec and the coarse and
fine stages train at the same time; what the coarse stage must predict follows from phones and their neighbours.

Writes DATA/codebooks.npz (centroids [3, 1024, 50], the voices' means [2, 50], weights [50]) and for the sets held_out and
sentences DATA/codes.SET.VOICE.npz: codes int16 [frames, 4].
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import ragged
import vocoder
from design import CODES, VOICES, pitch_code

FRAMES = 250_000  # the quantisers are made from
ROUNDS = 25
QUIET = 0.25  # share of the frames of silence that take part
LOUDNESS_WEIGHT, SHAPE_WEIGHT = 0.6, 0.7  # of cepstrum 0 and of the others


def nearest(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    half = (centroids * centroids).sum(1) / 2
    return torch.cat([(part @ centroids.t() - half).argmax(1) for part in x.split(32768)])


def k_means(x: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    centroids = x[torch.randperm(len(x), generator=generator)[:k]].clone()
    for _ in range(ROUNDS):
        index = nearest(x, centroids)
        count = torch.bincount(index, minlength=k)
        total = torch.zeros_like(centroids).index_add_(0, index, x)
        alive = count > 0
        centroids[alive] = total[alive] / count[alive, None]
        dead = (~alive).nonzero()[:, 0]
        centroids[dead] = x[torch.randint(len(x), (len(dead),), generator=generator)]
    return centroids


def pitch_codes(levels: np.ndarray, voice: str) -> np.ndarray:
    phase = vocoder.phases(levels)
    return np.array([pitch_code(voice, int(n), int(p)) for n, p in zip(levels, phase, strict=True)], np.int16)


def quantise(x: torch.Tensor, books: torch.Tensor) -> list[torch.Tensor]:
    """Indices into each codebook of vectors [n, 50], one stage after the other."""
    out = []
    for book in books:
        index = nearest(x, book)
        x = x - book[index]
        out.append(index)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    generator = torch.Generator().manual_seed(1)
    began = time.time()
    sets = {
        (name, voice): ragged.load(data / f"{name}.{voice}.npz", "features", "level")
        for name in ("sentences", "held_out") for voice in VOICES
    }  # fmt: skip
    order = 25
    weights = torch.full((2 * order,), SHAPE_WEIGHT)
    weights[[0, order]] = LOUDNESS_WEIGHT
    means, frames = [], []
    for voice in VOICES:
        every = torch.from_numpy(np.concatenate(sets["sentences", voice]["features"])).float()
        means.append(every.mean(0))
        chosen = every[torch.randperm(len(every), generator=generator)[:FRAMES]]
        loud = chosen[:, 0] > chosen[:, 0].quantile(0.5) - 3
        keep = loud | (torch.rand(len(chosen), generator=generator) < QUIET)
        frames.append(((chosen - means[-1]) * weights)[keep])
    x = torch.cat(frames)
    x = x[torch.randperm(len(x), generator=generator)]
    books, rest = [], x
    for stage in range(3):
        books.append(k_means(rest, CODES, generator))
        rest = rest - books[-1][nearest(rest, books[-1])]
        print(f"stage {stage}: {float(rest.pow(2).sum() / x.pow(2).sum()):.3f} of the energy is left, {time.time() - began:.0f} s", flush=True)
    books = torch.stack(books)
    np.savez(data / "codebooks.npz", books=books.numpy(), means=torch.stack(means).numpy(), weights=weights.numpy())
    for (name, voice), s in sets.items():
        lists = []
        mean = means[VOICES.index(voice)]
        for features, level in zip(s["features"], s["level"], strict=True):
            envelope = quantise((torch.from_numpy(features).float() - mean) * weights, books)
            columns = [envelope[0].numpy(), pitch_codes(level, voice), envelope[1].numpy(), envelope[2].numpy()]
            lists.append(np.stack(columns, 1).astype(np.int16))
        ragged.save(data / f"codes.{name}.{voice}.npz", codes=lists)
        used = len(np.unique(np.concatenate(lists)[:, 0]))
        print(f"{name}.{voice}: {len(lists)} utterances, {used} envelope codes used, {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()

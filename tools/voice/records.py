"""Reads what teacher.c writes."""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAGIC = 0x45434F56
PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh".split()
)
PHONE_ID = {name: i for i, name in enumerate(PHONES)}


@dataclasses.dataclass
class Record:
    line: int  # of the text file
    tokens: list[str]  # as the teacher cut the line
    phones: list[tuple[str, float, int]]  # name, end in seconds, index of its token or -1
    track: np.ndarray  # [frames, 26] every 5 ms: F0 in Hz (0: unvoiced), mel-cepstrum
    rate: int
    samples: np.ndarray  # int16, empty without "wave"


def read(path: Path) -> Iterator[Record]:
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else b""
    at = 0
    while at < len(data):
        magic, line, n_tokens, n_phones, frames, channels, rate, n_samples = struct.unpack_from("<8i", data, at)
        if magic != MAGIC:
            raise ValueError(f"{path}: no record at byte {at}")
        at += 32
        tokens = []
        for _ in range(n_tokens):
            (size,) = struct.unpack_from("<i", data, at)
            tokens.append(bytes(data[at + 4 : at + 4 + size]).decode("utf-8", "replace"))
            at += 4 + size
        phones = []
        for _ in range(n_phones):
            name, end, token = struct.unpack_from("<8sfi", data, at)
            phones.append((name.split(b"\0")[0].decode(), end, token))
            at += 16
        track = np.frombuffer(data, "<f4", frames * channels, at).reshape(frames, channels)
        at += 4 * frames * channels
        samples = np.frombuffer(data, "<i2", n_samples, at)
        at += 2 * n_samples
        yield Record(line, tokens, phones, track, rate, samples)

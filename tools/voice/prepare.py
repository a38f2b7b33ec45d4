"""Turns the teacher's records into training data: letters, phones on the token grid, and features on the frame grid.

    python prepare.py DATA

For every set (held_out, sentences, words) and voice DATA/SET.VOICE.npz with lists over utterances:
    line                 int32 [1]      of the text file
    text                 int16 [letters]     WordPiece ids
    phone, length, letter   int16 [phones]   phone id, length in semantic tokens, index of the letter being read
    word                 int16 [words, 3]    first letter, first phone, phone after the last
    features             float16 [frames, 50]  mel-cepstra of the two halves of a frame (not for words)
    level                int8 [frames]   pitch in PITCH_STEPs, 0 unvoiced (not for words)
and DATA/audio.VOICE.npz with the audio of the first sentences, for the codec.

Phones are stretched to whole semantic tokens, features and audio with them, so that what a token stands for begins and
ends on frames. The rounding carries over: the end of every phone is within half a token of the teacher's.
"""

import argparse
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np

import ragged
import records
import vocoder
from design import FRAME_RATE, MAX_SEMANTIC, MAX_TEXT, PITCH_RANGE, PITCH_STEP, SEMANTIC_RATE, VOICES, spell
from spelling import Aligner

EDGE = 3  # semantic tokens of silence kept at most before and after an utterance
SETS = ("held_out", "sentences", "words")
AUDIO_SECONDS = 3000  # a voice
TRACK_RATE = 200
ALIGNER_WORDS = 12000


def spans(text: str, tokens: list[str]) -> list[tuple[int, int]] | None:
    """Where each of the teacher's tokens stands in the text."""
    out, at = [], 0
    for token in tokens:
        found = text.find(token, at) if token else -1
        if found < 0:
            return None
        at = found + len(token)
        out.append((found, at))
    return out


def groups(phones: list) -> list[tuple[int, int, int]]:
    """(token, first phone, phone after the last) of every token that is spoken."""
    out = []
    for i, (_, _, token) in enumerate(phones):
        if token < 0:
            continue
        if out and out[-1][0] == token:
            out[-1][2] = i + 1
        else:
            out.append([token, i, i + 1])
    return out


def grid(ends: np.ndarray) -> tuple[np.ndarray, float]:
    """Ends of the phones in semantic tokens, at least one each, and the second at which the first token starts."""
    start = max(0.0, ends[0] - EDGE / SEMANTIC_RATE)
    last = min(ends[-1], ends[-2] + EDGE / SEMANTIC_RATE)
    out, q = [], 0
    for end in [*ends[:-1], last]:
        q = max(q + 1, round((end - start) * SEMANTIC_RATE))
        out.append(q)
    return np.array(out), start


def letters_of(text: str, record: records.Record, aligner: Aligner, where: list) -> tuple[np.ndarray, np.ndarray]:
    """For each phone the index of its letter (spaces not counted), and the spoken words."""
    count = np.cumsum([0] + [not c.isspace() for c in text])
    letter = np.zeros(len(record.phones), np.int16)
    words, done = [], 0
    for token, first, end in groups(record.phones):
        begin, stop = where[token]
        path = aligner.align(text[begin:stop].lower(), tuple(p[0] for p in record.phones[first:end]))
        letter[first:end] = [count[begin + k] for k in path]
        letter[done:first] = max(0, count[begin] - 1)  # a pause reads the mark before the word
        words.append((count[begin], first, end))
        done = end
    letter[done:] = count[-1] - 1
    return letter, np.array(words, np.int16)


def stretched(record: records.Record, ends: np.ndarray, bounds: np.ndarray, start: float) -> tuple:
    """Mel-cepstra [frames · 4, 25] every 5 ms and F0 [frames · 4] of the grid's time."""
    n = bounds[-1] * TRACK_RATE // SEMANTIC_RATE
    at = np.interp((np.arange(n) + 0.5) / TRACK_RATE, np.r_[0, bounds] / SEMANTIC_RATE, np.r_[start, ends])
    at = np.clip(at * TRACK_RATE - 0.5, 0, len(record.track) - 1.001)
    low = at.astype(np.int64)
    part = (at - low)[:, None]
    cepstrum = record.track[low, 1:] * (1 - part) + record.track[low + 1, 1:] * part
    return cepstrum.astype(np.float32), record.track[np.round(at).astype(np.int64), 0]


def levels_of(f0: np.ndarray, voice: str) -> np.ndarray:
    """Pitch level of every frame. It changes only from token to token; a frame is voiced when half of it is."""
    voiced = (f0 > 40).reshape(-1, TRACK_RATE // FRAME_RATE).sum(1) * 2 >= TRACK_RATE // FRAME_RATE
    rows = f0.reshape(-1, TRACK_RATE // SEMANTIC_RATE)
    known = rows > 40
    mean = (rows * known).sum(1) / np.maximum(1, known.sum(1))
    level = np.clip(np.round(mean / PITCH_STEP), *PITCH_RANGE[voice])
    return (np.repeat(level, FRAME_RATE // SEMANTIC_RATE) * voiced).astype(np.int8)


def utterance(text: str, record: records.Record, aligner: Aligner, voice: str, with_features: bool) -> dict | None:
    where = spans(text, record.tokens)
    phones = record.phones
    if where is None or len(phones) < 3 or phones[0][0] != "pau" or phones[-1][0] != "pau" or not groups(phones):
        return None
    if any(name not in records.PHONE_ID for name, _, _ in phones):
        return None
    ids = spell(text)
    ends = np.array([end for _, end, _ in phones])
    bounds, start = grid(ends)
    if len(ids) != sum(not c.isspace() for c in text) or len(ids) > MAX_TEXT or bounds[-1] > MAX_SEMANTIC - 8:
        return None
    ends[-1] = min(ends[-1], ends[-2] + EDGE / SEMANTIC_RATE)
    letter, words = letters_of(text, record, aligner, where)
    out = {
        "line": np.array([record.line], np.int32),
        "text": np.array(ids, np.int16),
        "phone": np.array([records.PHONE_ID[name] for name, _, _ in phones], np.int16),
        "length": np.diff(np.r_[0, bounds]).astype(np.int16),
        "letter": letter,
        "word": words,
    }
    if with_features:
        cepstrum, f0 = stretched(record, ends, bounds, start)
        out["cepstrum"] = cepstrum
        out["features"] = cepstrum.reshape(-1, 2, 2, cepstrum.shape[1]).mean(2).reshape(bounds[-1] * 2, -1).astype(np.float16)
        out["level"] = levels_of(f0, voice)
    return out


def make_aligner(data: Path) -> Aligner:
    texts = (data / "words.txt").read_text().split("\n")
    words = []
    for record in records.read(data / "words.slt"):
        if record.line >= ALIGNER_WORDS:
            break
        for _, first, end in groups(record.phones):
            words.append((texts[record.line].lower(), tuple(p[0] for p in record.phones[first:end])))
    return Aligner(words)


def prepare(job: tuple[Path, str]) -> None:
    data, voice = job
    aligner = make_aligner(data)
    for name in SETS:
        began = time.time()
        texts = (data / f"{name}.txt").read_text().split("\n")
        lists, audio, audio_line, seconds, refused = {}, [], [], 0.0, 0
        for record in records.read(data / f"{name}.{voice}"):
            u = utterance(texts[record.line], record, aligner, voice, name != "words")
            if u is None:
                refused += 1
                continue
            cepstrum = u.pop("cepstrum", None)
            if name == "sentences" and seconds < AUDIO_SECONDS:
                wave = vocoder.synthesize(cepstrum, u["level"], record.line)
                audio.append((np.clip(wave, -1, 1) * 32767).astype(np.int16))
                audio_line.append(u["line"])
                seconds += len(wave) / vocoder.SAMPLE_RATE
            for key, value in u.items():
                lists.setdefault(key, []).append(value)
        ragged.save(data / f"{name}.{voice}.npz", **lists)
        if audio:
            ragged.save(data / f"audio.{voice}.npz", audio=audio, line=audio_line)
        hours = sum(int(a.sum()) for a in lists["length"]) / SEMANTIC_RATE / 3600
        print(f"{name}.{voice}: {len(lists['line'])} utterances, {hours:.2f} h, {refused} refused, {time.time() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--voice", choices=VOICES, action="append", help="only this one")
    args = parser.parse_args()
    voices = args.voice or VOICES
    with Pool(len(voices)) as pool:
        pool.map(prepare, [(args.data, voice) for voice in voices])


if __name__ == "__main__":
    main()

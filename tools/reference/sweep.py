"""Random configurations against barkd: every knob of shapes.Knobs drawn at random, several texts and voices each.

    python sweep.py [--first 0] [--count 20] [--barkd bin/barkd] [--keep DIR]

Configuration N is a function of N alone. A mismatch prints N, the knobs that differ from the defaults, and the first
difference; its directory stays under --keep. Runs that transformers itself cannot finish are skipped and counted.
"""

import argparse
import dataclasses
import random
import shutil
import sys
import tempfile
from pathlib import Path

import torch

import compare
import make_model
import shapes
from run_hf import Reference

NEAR = 2e-5  # below this gap between two logits, float32 alone may decide
TEXTS = [
    "Hello world.",
    "",
    "a",
    "The speech — is a test; ÜNDER À la carte, naïve é\u0301 français…",
    "你好, 世界! あい ♪♪ дя",
    "test " * 60,
    "x" * 101 + " hello",
    "[MASK][PAD] [UNK] [sep]",
    "tab\tnew\nline\u00a0nbsp\u200bzero\u00adsoft",
    "¿Test? ¡Sí!",
]


def draw(number: int) -> shapes.Knobs:
    r = random.Random(number)

    def stack() -> shapes.Stack:
        heads = r.choice([1, 2, 3, 4])
        return shapes.Stack(r.choice([1, 1, 2, 3]), heads, heads * r.choice([3, 4, 8, 9, 16]), r.random() < 0.4)

    codebook = r.choice([16, 21, 32, 50])
    fine_history = r.randint(3, 40)
    semantic_rate = r.choice([49.9, 49.9, 50, 33.3, 25, 61.7])
    coarse_rate = r.choice([75, 75, 75, 50, 86.1328125, 100, 31])
    ratio = coarse_rate / semantic_rate * 2
    fine_codebooks = r.choice([8, 8, 4, 3, 6])
    codec_power = 1 << (codebook - 1).bit_length()
    knobs = dict(
        semantic=stack(), coarse=stack(), fine=stack(), tied=r.random() < 0.7,
        pieces=r.choice([150, 220, 400]), semantic_vocab=r.choice([40, 60, 100]), spare=r.choice([4, 5, 9]),
        eos_gap=r.choice([0, 0, 0, 2]),
        codebook=codebook, codebook_spare=r.choice([1, 2, 7]),
        text_length=r.choice([8, 20, 33, 64]), max_new=r.choice([20, 40, 70]),
        semantic_rate=semantic_rate, coarse_rate=coarse_rate,
        coarse_input=r.choice([9, 20, 33]), window=r.choice([1, 2, 7, 12, 25]),
        coarse_history=r.choice([3, 12, 31, 48, 90]),
        fine_history=fine_history, fine_input=2 * fine_history + r.randint(0, 30), context=r.choice([0, 0, 200]),
        fine_codebooks=fine_codebooks, codes_given=r.choice([1, 1, 1, 2]),
        ratios=tuple(r.choice([1, 2, 3, 4, 5, 8]) for _ in range(r.choice([1, 2, 3, 4]))),
        filters=r.choice([2, 3, 4, 8]), codec_hidden=r.choice([5, 8, 12]), kernel=r.choice([1, 3, 5, 7]),
        last_kernel=r.choice([1, 3, 7]), residual_kernel=r.choice([1, 3, 5]), residual_layers=r.choice([0, 1, 1, 2, 3]),
        dilation_growth=r.choice([1, 2, 3]), compress=r.choice([1, 2, 2]), lstm_layers=r.choice([1, 2, 3]),
        conv_shortcut=r.random() < 0.6, codec_codebook=r.choice([0, codec_power * 2]),
        quantizers=fine_codebooks + r.choice([0, 1]), sample_rate=r.choice([24000, 16000, 44100]),
        seed=number, dtype=r.choice(["f32", "f32", "f16", "bf16"]),
        format=r.choice(["bin", "legacy", "safetensors", "save_pretrained", "sharded"]),
        weight_norm=r.choice(["g_v", "parametrizations"]),
        tokenizer=r.choice(["both", "vocab", "json", "saved"]), lowercase=r.random() < 0.3,
        strip_accents=r.choice([None, None, True, False]), init=r.choice(["varied"] * 5 + ["default"]),
        sparse_generation=r.random() < 0.3,
    )  # fmt: skip
    voices = {}
    for name in ("one", "two"):
        n = r.choice([1, 2, 3, 7, 20, 45, 120])
        frames = max(1, int(n * ratio / 2))
        voices[name] = shapes.Voice(
            n, frames, r.choice([frames, frames, frames // 2 + 1]), r.choice(["npz", "deflated", "npy"])
        )
    return shapes.Knobs(voices=voices, **knobs)


def check(number: int, folder: Path, program: Path) -> tuple:
    """(lines that tell what differs, runs compared, runs skipped) of one configuration."""
    k = draw(number)
    make_model.write_model(folder, k)
    reference = Reference(folder)
    gguf = folder / "model.gguf"
    compare.convert(program, folder, gguf)
    r = random.Random(-number - 1)
    lines, compared, skipped = [], 0, 0
    for voice in [None, *k.voices]:
        for text in r.sample(TEXTS, 2):
            limit = r.choice([0, 0, 0, 5])
            path = voice and (
                str(folder / f"speaker_embeddings/{voice}")
                if k.voices[voice].layout == "npy"
                else str(folder / f"voices/{voice}.npz")
            )
            try:
                want = reference.run(text, voice if voice and k.voices[voice].layout == "npy" else path, limit)
            except (RuntimeError, ValueError, KeyError, IndexError) as error:
                skipped += 1
                print(f"  {number}: transformers cannot: {type(error).__name__}: {str(error)[:80]}")
                continue
            compared += 1
            try:
                got = compare.synthesize(program, gguf, folder, text, path, limit)
            except compare.Failed as error:
                lines.append(f"{text!r:.30} voice {path}: {error}")
                continue
            found = compare.differences(want, got)
            if found:
                near = "" if want["margins"].min() > NEAR else f" (margins only {want['margins']})"
                lines.append(f"{text!r:.30} voice {path} limit {limit}{near}: " + "; ".join(found))
    return lines, compared, skipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--barkd", type=Path, default=compare.BARKD)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "bark-sweep")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wrong = compared = skipped = 0
    for number in range(args.first, args.first + args.count):
        folder = args.keep / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            lines, n, s = check(number, folder, args.barkd)
        except compare.Failed as error:
            lines, n, s = [str(error)], 0, 0
        compared, skipped = compared + n, skipped + s
        if not lines:
            shutil.rmtree(folder)
            continue
        wrong += 1
        changed = {f.name: getattr(draw(number), f.name) for f in dataclasses.fields(shapes.Knobs)}
        changed = {name: v for name, v in changed.items() if v != getattr(shapes.Knobs(), name)}
        print(f"{number}: {changed}\n  " + "\n  ".join(lines), flush=True)
    print(f"{args.count} configurations, {compared} runs compared, {skipped} skipped, {wrong} configurations differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

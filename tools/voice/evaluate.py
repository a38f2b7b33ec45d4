"""Word error rates on the held-out sentences, by a recogniser, of the teacher and of what is made of its sentences.

    python evaluate.py DATA RUNS OUT CASE... [--recogniser whisper|pocketsphinx] [--n 200]

Cases:
    teacher     the teacher's own audio (16 kHz)
    target      what the decoder is trained on: the teacher's parameters on our grid through vocoder.py
    quantised   the centroids of the true codes through vocoder.py: what the codes allow
    copy        the true codes through the trained decoder; copy2: only the two coarse codebooks
    coarse      the true semantic tokens through the trained coarse and fine stages and the decoder
    FILE.gguf   text to audio by `barkd synth` with its defaults, a fixed seed

Odd sentences are spoken by the second voice. OUT collects results.json, and what was heard in CASE.RECOGNISER.txt.
"""

import argparse
import json
import subprocess
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import torch

import ragged
import records
from design import VOICES
from recognise import RECOGNISERS, word_error_rate

BARKD = Path(__file__).resolve().parents[2] / "bin" / "barkd"


def voice_of(i: int) -> str:
    return VOICES[i % len(VOICES)]


def teacher(args, texts):
    program = args.data.parent / "bin" / "teacher-wave"
    every = {}
    for voice in VOICES:
        text = "\n".join(texts) + "\n"
        raw = subprocess.run([program, voice, "wave"], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
        with tempfile.NamedTemporaryFile() as f:
            Path(f.name).write_bytes(raw)
            every[voice] = [(r.samples / 32768, r.rate) for r in records.read(Path(f.name))]
    return [every[voice_of(i)][i] for i in range(len(texts))]


def target(args, texts):
    import prepare
    import vocoder

    aligner = prepare.make_aligner(args.data)
    every = {}
    for voice in VOICES:
        read = [r for r in records.read(args.data / f"held_out.{voice}") if r.line < len(texts)]
        made = [prepare.utterance(texts[r.line], r, aligner, voice, True) for r in read]
        every[voice] = [vocoder.synthesize(u["cepstrum"], u["level"], i) for i, u in enumerate(made)]
    return [(every[voice_of(i)][i], 24000) for i in range(len(texts))]


def quantised(args, texts):
    import vocoder

    stored = np.load(args.data / "codebooks.npz")
    order = stored["weights"].size // 2
    out = []
    for i in range(len(texts)):
        voice = voice_of(i)
        codes = ragged.load(args.data / f"codes.held_out.{voice}.npz")["codes"][i].astype(int)
        levels = ragged.load(args.data / f"held_out.{voice}.npz", "level")["level"][i]
        envelope = sum(book[codes[:, q]] for book, q in zip(stored["books"], (0, 2, 3), strict=True))
        halves = (envelope / stored["weights"] + stored["means"][VOICES.index(voice)]).reshape(-1, 2, order)
        out.append((vocoder.synthesize(halves.repeat(2, axis=1).reshape(-1, order), levels, i), 24000))
    return out


def copy(args, texts, used: int = 4):
    from decoder import Decoder
    from export import load

    model = load(Decoder(), args.runs / "codec" / "codec.pt")
    codes = {v: ragged.load(args.data / f"codes.held_out.{v}.npz")["codes"] for v in VOICES}
    out = []
    for i in range(len(texts)):
        c = torch.from_numpy(codes[voice_of(i)][i].astype(np.int64))[None]
        with torch.no_grad():
            out.append((model(c, torch.tensor([used]))[0].numpy(), 24000))
    return out


def from_semantic(args, texts):
    from stages import Stages

    stages = Stages(args.data, args.runs)
    return [(stages.speak(voice_of(i), i), 24000) for i in range(len(texts))]


def barkd(args, texts, model: Path):
    out, spent = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        for i, text in enumerate(texts):
            began = time.time()
            subprocess.run(
                [args.barkd, "synth", "--model", model, "--text", text, "--voice", voice_of(i), "--seed", "1", "-o", path],
                check=True, capture_output=True,
            )  # fmt: skip
            spent += time.time() - began
            with wave.open(str(path)) as w:
                out.append((np.frombuffer(w.readframes(w.getnframes()), "<i2") / 32768, w.getframerate()))
    seconds = sum(len(x) / rate for x, rate in out)
    print(f"{seconds:.0f} s of audio in {spent:.0f} s, programs' starts included")
    return out


def make(case: str, args, texts):
    if case.endswith(".gguf"):
        return barkd(args, texts, Path(case))
    return {
        "teacher": teacher,
        "target": target,
        "quantised": quantised,
        "copy": copy,
        "copy2": lambda a, t: copy(a, t, 2),
        "coarse": from_semantic,
    }[case](args, texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("case", nargs="+")
    parser.add_argument("--recogniser", choices=RECOGNISERS, default="whisper")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--barkd", type=Path, default=BARKD)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    texts = (args.data / "held_out.txt").read_text().splitlines()[: args.n]
    hear = RECOGNISERS[args.recogniser]()
    for case in args.case:
        audio = make(case, args, texts)
        heard = [hear(samples, rate) for samples, rate in audio]
        wer, cer = word_error_rate(texts, heard)
        name = Path(case).stem
        print(f"{name}, {args.recogniser}, {len(texts)} sentences: WER {wer:.1%}, CER {cer:.1%}", flush=True)
        lines = [f"{t}\n    {h}" for t, h in zip(texts, heard, strict=True)]
        (args.out / f"{name}.{args.recogniser}.txt").write_text("\n".join(lines) + "\n")
        path = args.out / "results.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        results[f"{name} {args.recogniser}"] = {"sentences": len(texts), "wer": round(wer, 4), "cer": round(cer, 4)}
        path.write_text(json.dumps(results, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()

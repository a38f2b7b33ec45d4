"""Writes server/testdata/reference: small checkpoints and what transformers makes of them.

    python make_fixtures.py [--only SHAPE ...] [--out DIR]

Each folder is a Hugging Face directory (suno: suno's files, compressed, of a directory that is not kept) plus
expected.json (cases with tokens and margins) and one NAME.f32 of little-endian float32 samples per case. A seed is
taken only if a float32 and a float64 run agree on every token and no choice was closer than MIN_MARGIN, so that a
correct float32 implementation must give the same tokens.
"""

import argparse
import dataclasses
import gzip
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

import shapes
from make_model import write_model
from run_hf import Reference

torch.set_num_threads(1)  # small matrices
MIN_MARGIN = 3e-4  # float32 noise on these shapes is below 2e-5
MIN_MARGIN_TRUE = 1e-5  # with windows of 1024 frames, 6144 choices each; noise at width 8 is below 3e-6
SEEDS = 60
SHAPES = ["base", "bias", "half", "safetensors", "windows", "codec", "untied", "suno"]
HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "server" / "testdata" / "reference"

PLAIN = "Hello, français testing world!"
ODD = "What a wave…\tÜnder 你好 Xyzzy?  [MASK] isn't\n♪ Ω"
LONG = "The speech is a test: " * 6 + "sounded worldly."


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    text: str
    voice: str | None = None
    max_tokens: int = 0
    min_eos_p: float = 0.0


def cases(k: shapes.Knobs) -> list:
    """Every text without a voice, a voice with each text in turn, and a limit and an early end."""
    most = 40 if k.max_new > 40 else 0
    made = [Case("plain", PLAIN, None, most), Case("odd", ODD, None, most), Case("long", LONG, None, most)]
    made += [Case("voice-" + v.replace("/", "-"), (PLAIN, ODD, LONG)[i % 3], v, most) for i, v in enumerate(k.voices)]
    return made + [Case("limit", LONG, max_tokens=9), Case("early", ODD, None, most, min_eos_p=0.05)]


def voice_argument(folder: Path, k: shapes.Knobs, voice: str | None) -> str | None:
    if voice and k.voices[voice].layout != "npy":
        return str(folder / "voices" / f"{voice}.npz")
    return voice


def attempt(folder: Path, k: shapes.Knobs) -> tuple:
    """(runs of all cases, None), or (None, why this seed will not do)."""
    single, double = Reference(folder), Reference(folder, torch.float64)
    runs = []
    for case in cases(k):
        voice = voice_argument(folder, k, case.voice)
        try:
            run = single.run(case.text, voice, case.max_tokens, case.min_eos_p)
        except (RuntimeError, KeyError) as error:  # the end token came first: transformers cannot go on
            return None, f"{case.name}: {error!r:.60}"
        exact = double.run(case.text, voice, case.max_tokens, case.min_eos_p)
        if any(not np.array_equal(run[stage], exact[stage]) for stage in ("semantic", "coarse", "fine")):
            return None, f"{case.name}: float64 differs"
        if run["margins"].min() < (MIN_MARGIN if k.fine_input < 1024 else MIN_MARGIN_TRUE):
            return None, f"{case.name}: margin {run['margins'].min():.1e}"
        runs.append((case, run | {"noise": np.abs(run["audio"] - exact["audio"]).max()}))
    ended = [run["ended"] for _, run in runs]
    if all(ended) or (not any(ended) and not k.used_rows):  # of many tokens the end token is rarely the best
        return None, "no mix of ended and full sequences"
    return runs, None


def expected(runs: list, k: shapes.Knobs) -> dict:
    listed = []
    for case, run in runs:
        entry = dataclasses.asdict(case)
        entry |= {name: run[name].tolist() for name in ("text_ids", "semantic", "coarse", "fine")}
        entry["ended"] = bool(run["ended"])
        entry["margins"] = [float(f"{m:.3g}") for m in run["margins"]]
        entry["float64_audio_difference"] = float(f"{run['noise']:.2g}")
        listed.append(entry)
    return {"shape": dataclasses.asdict(k), "cases": listed}


def write_fixture(out: Path, name: str) -> None:
    first = 100 * SHAPES.index(name)  # equal seeds give equal tensors under equal names
    for seed in range(first, first + SEEDS):
        k = dataclasses.replace(shapes.SHAPES[name], seed=seed)
        folder, suno = out / name, out / "suno-files"
        for stale in (folder, suno):
            shutil.rmtree(stale, ignore_errors=True)
        write_model(folder, k, suno_folder=suno if name == "suno" else None)
        runs, why_not = attempt(folder, k)
        if runs:
            break
        print(f"{name}: seed {seed}: {why_not}", flush=True)
    else:
        sys.exit(f"{name}: no seed from {first} to {first + SEEDS - 1} will do")
    if name == "suno":
        replace_by_suno(folder, suno)
    for case, run in runs:
        run["audio"].astype("<f4").tofile(folder / f"{case.name}.f32")
    (folder / "expected.json").write_text(json.dumps(expected(runs, k), separators=(",", ":"), ensure_ascii=False))
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    closest = min(run["margins"].min() for _, run in runs)
    print(f"{name}: seed {seed}, {len(runs)} cases, {size >> 10} KiB, smallest margin {closest:.1e}", flush=True)


def replace_by_suno(folder: Path, suno: Path) -> None:
    """Keeps suno's files and the voices in place of the Hugging Face directory."""
    shutil.move(folder / "voices", suno / "voices")
    shutil.rmtree(folder)
    suno.rename(folder)
    for path in [*folder.glob("*.pt"), *folder.glob("*.th")]:
        # Neither name nor time, so that the same weights give the same bytes.
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        write_fixture(args.out, name)


if __name__ == "__main__":
    main()

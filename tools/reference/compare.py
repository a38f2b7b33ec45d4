"""Compares barkd with transformers on one Hugging Face directory: tokens exactly, audio to 1e-4 of full scale.

    python compare.py DIR --text TEXT [--voice NAME|FILE.npz] [--max-tokens N] [--barkd bin/barkd] [--keep DIR]

Converts DIR with `barkd convert`, speaks with `barkd synth --greedy --rules hf --kv f32 --save-voice` and runs
transformers in float32. Exit status 0: equal; 1: not; the first difference of each stage is printed.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
BARKD = Path(__file__).resolve().parents[2] / "bin" / "barkd"


class Failed(Exception):
    """barkd exited with an error; the text is its standard error."""


def barkd(program: Path, *arguments) -> None:
    run = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if run.returncode:
        raise Failed(f"barkd {arguments[0]}: exit {run.returncode}: {run.stderr.strip()[-600:]}")


def convert(program: Path, source: Path, gguf: Path, kind: str | None = None) -> None:
    barkd(program, "convert", source, "-o", gguf, *(["--type", kind] if kind else []))


def synthesize(program: Path, gguf: Path, work: Path, text: str, voice: str | None, max_tokens: int) -> dict:
    """What barkd makes of a text, as the arrays of run_hf."""
    wav, npz = work / "out.wav", work / "out.npz"
    options = ["--voice", voice] if voice else []
    options += ["--max-tokens", max_tokens] if max_tokens else []
    barkd(
        program, "synth", "--model", gguf, "--text", text, "-o", wav, "--greedy", "--rules", "hf", "--kv", "f32",
        "--save-voice", npz, "--format", "wav-f32", *options,
    )  # fmt: skip
    arrays = np.load(npz)
    return {name: arrays[f"{name}_prompt"] for name in ("semantic", "coarse", "fine")} | {"audio": read_wav(wav)}


def read_wav(path: Path) -> np.ndarray:
    """Samples of a mono WAV file of 32-bit floats."""
    data = path.read_bytes()
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt " and struct.unpack_from("<HHIIHH", body)[5] != 32:
            raise ValueError(f"{path}: not 32-bit samples")
        if name == b"data":
            return np.frombuffer(body, "<f4").astype(np.float64)
        at += 8 + size + size % 2
    raise ValueError(f"{path}: no data")


def differences(reference: dict, ours: dict) -> list:
    """One line per stage that differs; later stages follow from earlier ones, so the first is the cause."""
    lines = []
    for stage in ("semantic", "coarse", "fine"):
        want, got = reference[stage], ours[stage]
        if want.shape != got.shape:
            lines.append(f"{stage}: shape {got.shape}, transformers {want.shape}")
        elif not np.array_equal(want, got):
            at = np.argwhere(want != got)[0]
            count = int((want != got).sum())
            lines.append(
                f"{stage}: {count} of {want.size} differ, first at {at.tolist()}: {got[tuple(at)]}, {want[tuple(at)]}"
            )
    want, got = reference["audio"], ours["audio"]
    if want.shape != got.shape:
        lines.append(f"audio: {got.size} samples, transformers {want.size}")
    elif want.size and np.abs(want - got).max() > TOLERANCE:
        worst = int(np.abs(want - got).argmax())
        lines.append(f"audio: differs by {np.abs(want - got).max():.2e} at sample {worst} of {want.size}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--voice")
    parser.add_argument("--max-tokens", type=int, default=0)
    parser.add_argument("--barkd", type=Path, default=BARKD)
    parser.add_argument("--keep", type=Path, help="where model.gguf, out.wav and out.npz stay")
    args = parser.parse_args()
    from run_hf import Reference  # slow to import; --help need not wait

    with tempfile.TemporaryDirectory() as scratch:
        work = args.keep or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        try:
            convert(args.barkd, args.folder, work / "model.gguf")
            ours = synthesize(args.barkd, work / "model.gguf", work, args.text, args.voice, args.max_tokens)
        except Failed as error:
            sys.exit(str(error))
        reference = Reference(args.folder).run(args.text, args.voice, args.max_tokens)
    lines = differences(reference, ours)
    counts = ", ".join(f"{name} {reference[name].shape}" for name in ("semantic", "coarse", "fine", "audio"))
    print("\n".join(lines) or f"equal: {counts}; smallest margins {reference['margins'].round(5).tolist()}")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()

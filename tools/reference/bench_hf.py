"""Times Hugging Face transformers beside barkd: the same checkpoint, text, number of tokens and threads, in one run.

python bench_hf.py [--folder DIR] [--tokens 250] [--threads 2] [--runs 2] [--dtypes bf16 f32] [--types q8 bf16]
    [--build build] -o OUT.json

Without --folder a random checkpoint of bark-small's shape is made. Each program runs alone, in a process of its own;
of its runs the fastest counts. The codes are random, so the audio is noise; the work is that of speech.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Hello, my name is Suno."  # bench_speech's
STAGES = ("semantic", "coarse", "fine", "codec")


def run_transformers(folder: Path, dtype: str, tokens: int, threads: int, runs: int) -> dict:
    """Times generate(), sampling as the checkpoint says, in this process."""
    import torch
    from transformers import BarkModel, BarkProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    start = time.monotonic()
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    model = BarkModel.from_pretrained(folder, dtype=kind, local_files_only=True).eval()
    loaded = time.monotonic() - start
    inputs = BarkProcessor.from_pretrained(folder, local_files_only=True)(TEXT, max_length=256)
    spent = {}

    def timed(name: str, function):
        def wrapper(*args, **kwargs):
            start = time.monotonic()
            result = function(*args, **kwargs)
            spent[name] = time.monotonic() - start
            return result

        return wrapper

    for name, module in zip(STAGES, (model.semantic, model.coarse_acoustics, model.fine_acoustics), strict=False):
        module.generate = timed(name, module.generate)
    model.codec_decode = timed("codec", model.codec_decode)
    best = None
    for seed in range(runs):
        torch.manual_seed(seed)
        start = time.monotonic()
        with torch.no_grad():
            audio = model.generate(**inputs, semantic_min_new_tokens=tokens, semantic_max_new_tokens=tokens)
        seconds = time.monotonic() - start
        if best is None or seconds < best["seconds"]:
            best = {"seconds": seconds, "stages": dict(spent)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    audio_s = audio.shape[-1] / model.generation_config.sample_rate
    return {"program": "transformers", "type": dtype, "audio_s": audio_s, "load_s": loaded, "peak_bytes": peak} | best


def transformers_alone(args, dtype: str) -> dict:
    own = [sys.executable, __file__, "--folder", args.folder, "--alone", dtype]
    own += ["--tokens", str(args.tokens), "--threads", str(args.threads), "--runs", str(args.runs)]
    return json.loads(subprocess.run(own, check=True, stdout=subprocess.PIPE).stdout)


def run_barkd(args, kind: str) -> dict:
    """barkd convert, then bench_speech, which also takes the fastest of two runs."""
    model = args.build / f"{args.folder.name}-{kind}.gguf"
    if not model.exists():
        command = [ROOT / "bin/barkd", "convert", args.folder, "--type", kind, "-o", model]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = args.build / "bench-hf.barkd.json"
    lines.unlink(missing_ok=True)
    bench = ROOT / "build/native/native/bench/bench_speech"
    command = [bench, model, str(args.threads), str(args.tokens), f"--json={lines}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = json.loads(lines.read_text())
    lines.unlink()
    stages = {s: sum(v["seconds"] for k, v in run["stages"].items() if k.split()[0] == s) for s in STAGES}
    same = {k: run[k] for k in ("seconds", "audio_s", "load_s", "peak_bytes")}
    return {"program": "barkd", "type": kind, "stages": stages} | same


def print_table(rows: list[dict]) -> None:
    rivals = [r for r in rows if r["program"] == "transformers"]
    heads = ["semantic", "coarse", "fine", "codec", "whole", "real-time factor", "peak memory"]
    heads += [f"faster than {r['type']} transformers" for r in rivals]
    print("| program, weights | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for r in rows:
        cells = [f"{r['stages'][s]:.2f} s" for s in STAGES]
        cells += [f"{r['seconds']:.2f} s", f"{r['seconds'] / r['audio_s']:.2f}", f"{r['peak_bytes'] / 1e9:.2f} GB"]
        cells += [f"{rival['seconds'] / r['seconds']:.1f} ×" for rival in rivals]
        print(f"| {r['program']}, {r['type']} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--dtypes", nargs="*", default=["bf16", "f32"], choices=["bf16", "f32"])
    parser.add_argument("--types", nargs="*", default=["q4", "q8", "bf16"], choices=["q4", "q8", "bf16", "f16", "f32"])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--alone", choices=["bf16", "f32"], help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.alone:
        json.dump(run_transformers(args.folder, args.alone, args.tokens, args.threads, args.runs), sys.stdout)
        return
    if args.folder is None:
        args.folder = args.build / "bark-small-hf"
        if not args.folder.exists():
            make = [sys.executable, Path(__file__).with_name("make_model.py"), "--shape", "bark-small"]
            subprocess.run([*make, "--format", "safetensors", "--out", args.folder], check=True)
    rows = [transformers_alone(args, dtype) for dtype in args.dtypes] + [run_barkd(args, kind) for kind in args.types]
    lengths = {round(r["audio_s"], 2) for r in rows}
    if len(lengths) > 1:
        sys.exit(f"the runs made different amounts of audio, {sorted(lengths)} s: the end token came early")
    print_table(rows)
    if args.out:
        args.out.write_text(json.dumps({"threads": args.threads, "tokens": args.tokens, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

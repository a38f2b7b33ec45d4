"""Draws what `make bench` measured: native/roofline.svg, batch.svg and length.svg.

python plots.py BUILD OUT_DIRECTORY
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

TYPES = {"f32": "tab:blue", "f16": "tab:green", "bf16": "tab:orange", "i8": "tab:red", "i4": "tab:purple"}


def records(path: Path) -> list[dict]:
    """The objects of a file, one a line; none if it is not there."""
    if not path.exists():
        print(f"{path} is missing, and its plot is left out: make bench")
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(path)


def roofline(ops: list[dict], path: Path) -> None:
    """Operations per second over operations per byte, under the roofs of the same run."""
    figure, axis = plt.subplots(figsize=(9, 6))
    ops = [op for op in ops if op["operations"] > 0]
    slowest, fastest = min(op["read"] for op in ops), max(op["read"] for op in ops)
    top = max(op["peak"] for op in ops)
    for read in (slowest, fastest):
        axis.plot([0.1, top / read], [0.1 * read, top], color="gray", linewidth=1)
        axis.annotate(f"{read / 1e9:.0f} GB/s", (0.12, 0.12 * read), rotation=38, va="bottom", color="gray")
    for peak in sorted({op["peak"] for op in ops}):
        axis.plot([peak / fastest, 3000], [peak, peak], color="gray", linewidth=1)
        axis.annotate(f"{peak / 1e9:.0f} G/s", (3000, peak), ha="right", va="bottom", color="gray")
    marks = {"linear": "o", "attention": "s", "lstm": "^", "conv1d": "D"}
    for op in ops:
        kind, kept = op["op"].split()[:2]
        colour = TYPES.get(kept.lower(), TYPES["f32"])
        axis.plot(op["operations"] / op["bytes"], op["operations"] / op["seconds"], marks[kind], color=colour)
    for kind, mark in marks.items():
        axis.plot([], [], mark, color="black", label=kind)
    for kept, colour in TYPES.items():
        axis.plot([], [], "o", color=colour, label=f"{kept} weights or cache")
    axis.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="operations per second")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    save(figure, path)


def batch(runs: list[dict], path: Path) -> None:
    """Decode and whole generations against requests at one time, as multiples of one request alone."""
    named = {"semantic_tokens_per_s": "semantic decode", "coarse_tokens_per_s": "coarse decode"}
    models = sorted({run["model"] for run in runs})
    figure, axes = plt.subplots(1, len(models), figsize=(5.5 * len(models), 4.5), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        rows = sorted((run for run in runs if run["model"] == model), key=lambda run: run["requests"])
        counts = [run["requests"] for run in rows]
        for key, label in named.items():
            axis.plot(counts, [run[key] / rows[0][key] for run in rows], marker="o", label=label)
        whole = [run["audio_s"] / run["seconds"] for run in rows]
        axis.plot(counts, [w / whole[0] for w in whole], marker="o", label="whole generations")
        axis.set(title=Path(model).stem, xlabel="requests at one time", ylabel="throughput, multiple of one request")
        axis.set(xticks=counts, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    save(figure, path)


def length(texts: list[dict], speech: list[dict], path: Path) -> None:
    """Time and memory against seconds of audio: long texts, and the single pieces of bench_speech."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    audio = [t["audio_s"] for t in texts]
    left.plot(audio, [t["seconds"] for t in texts], marker="o", label="time")
    left.set(title="long texts, embedded model, over HTTP", xlabel="seconds of audio", ylabel="seconds", ylim=(0, None))
    memory = left.twinx()
    memory.plot(audio, [t["peak_bytes"] / 1e6 for t in texts], marker="s", color="tab:red", label="most memory")
    memory.set(ylabel="MB", ylim=(0, 2 * max(t["peak_bytes"] for t in texts) / 1e6))
    lines = left.lines + memory.lines
    left.legend(lines, [line.get_label() for line in lines], loc="lower right")
    for name in sorted({(s["model"], s["voice"]) for s in speech}):
        rows = sorted((s for s in speech if (s["model"], s["voice"]) == name), key=lambda s: s["audio_s"])
        label = Path(name[0]).stem + (", full voice" if name[1] else "")
        right.plot([s["audio_s"] for s in rows], [s["seconds"] for s in rows], marker="o", label=label)
    right.plot([0, 14], [0, 14], color="gray", linewidth=1, label="real time")
    right.set(title="one piece", xlabel="seconds of audio", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "barkd"  # the same file for the same figures
    if ops := records(args.build / "bench-ops.json"):
        roofline(ops, args.out / "roofline.svg")
    measured = records(args.build / "bench.json")
    if runs := [run for run in measured if "requests" in run]:
        batch(runs, args.out / "batch.svg")
    texts, speech = records(args.build / "bench-length.json"), [run for run in measured if "bound_s" in run]
    if texts and speech:
        length(texts, speech, args.out / "length.svg")


if __name__ == "__main__":
    main()

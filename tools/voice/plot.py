"""Draws the training curves from the logs.

    python plot.py RUNS OUT.svg
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

CURVES = {
    "codec": ["spectral", "wave"],
    "semantic": ["loss", "onset", "per_greedy", "per_sampled"],
    "coarse": ["envelope", "pitch", "held_out_envelope", "held_out_pitch", "right", "held_out_right"],
    "fine": ["code2", "code3", "held_out_code2", "held_out_code3"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    plt.rcParams["svg.hashsalt"] = "barkd"  # the same file for the same logs
    figure, axes = plt.subplots(2, 2, figsize=(11, 7))
    for axis, (stage, names) in zip(axes.flat, CURVES.items(), strict=True):
        rows = [json.loads(line) for line in (args.runs / stage / f"{stage}.jsonl").read_text().splitlines()]
        for name in names:
            points = [(r["step"], r[name]) for r in rows if name in r and r["step"] >= 50]
            if points:
                axis.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
        axis.set_title(stage)
        axis.set_xlabel("steps")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()

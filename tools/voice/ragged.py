"""Lists of arrays of different lengths as one file."""

from pathlib import Path

import numpy as np


def save(path: Path, **lists) -> None:
    """Each keyword is a list of arrays that agree but for their first dimension."""
    out = {}
    for name, arrays in lists.items():
        out[name] = np.concatenate(arrays)
        out[name + "_ends"] = np.cumsum([len(a) for a in arrays])
    np.savez(path, **out)


def load(path: Path, *names: str) -> dict[str, list[np.ndarray]]:
    """The lists of the file; only those named, if any are."""
    with np.load(path) as stored:
        wanted = names or [n for n in stored.files if not n.endswith("_ends")]
        return {n: np.split(stored[n], stored[n + "_ends"][:-1]) for n in wanted}

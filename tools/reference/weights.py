"""Random weights whose greedy output varies: every tensor is a function of the seed and its name.

The scales keep activations near one at any width and make attention and positions matter, so that the
argmax does not settle on one token. lm_head is large enough that the gap between the best and the second
best token is far above the rounding of float32.
"""

import math
import re
import zlib
from collections.abc import Iterator

import torch

ENCODER = re.compile(r"^codec_model\.encoder\.")


def random_state(shapes: dict, seed: int, tied_heads: bool, dtype: torch.dtype) -> dict:
    """A state dict for names and shapes: {name: (shape, dtype)}, stored as dtype. Tied names share one tensor."""
    state = {}
    for name, (shape, kind) in shapes.items():
        head = re.fullmatch(r"fine_acoustics\.lm_heads\.(\d+)\.weight", name)
        if head and tied_heads:
            table = f"fine_acoustics.input_embeds_layers.{int(head[1]) + 1}.weight"
            state[name] = state[table]
        else:
            state[name] = stored(random_tensor(name, shape, kind, seed), dtype)
    return state


def random_tensor(name: str, shape: tuple, dtype: torch.dtype, seed: int) -> torch.Tensor:
    if dtype == torch.bool:  # the causal mask that older checkpoints carry
        return torch.ones(shape, dtype=torch.bool).tril()
    if name.endswith(".inited"):
        return torch.ones(shape)
    if name.endswith((".cluster_size", ".embed_avg")) or ENCODER.match(name):
        return torch.zeros(shape)  # never read
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) * 1000003 + seed)
    mean, std = scale(name, shape)
    return torch.empty(shape).normal_(mean, std, generator=generator)


def thin(state: dict, used_rows: int, keep: list) -> None:
    """Zeroes the rows of large tables from used_rows on, but for the rows in `keep`, in place."""
    for name, tensor in state.items():
        if re.search(r"embeds_layer\.|lm_head\.", name) and not name.startswith("fine") and len(tensor) > 4 * used_rows:
            kept = {row: tensor[row].clone() for row in keep if row < len(tensor)}
            tensor[used_rows:] = 0
            for row, values in kept.items():
                tensor[row] = values


def scale(name: str, shape: tuple) -> tuple:
    """(mean, standard deviation) of the tensor's values."""
    if name.startswith("codec_model."):
        return codec_scale(name, shape)
    if "layernorm" in name:
        return (1.0, 0.15) if name.endswith("weight") else (0.0, 0.1)
    if name.endswith("bias"):
        return 0.0, 0.1
    fan_in = shape[-1]
    if "embeds_layer" in name:
        # Tied fine heads want the scale of a head.
        return 0.0, 3 / math.sqrt(fan_in) if name.startswith("fine") else 0.6
    if "lm_head" in name:
        return 0.0, 4 / math.sqrt(fan_in)
    if "att_proj" in name:
        return 0.0, 1.3 / math.sqrt(fan_in)
    return 0.0, 1 / math.sqrt(fan_in)


def codec_scale(name: str, shape: tuple) -> tuple:
    if name.endswith("original0"):  # the norm g of each output channel
        return (1.0, 0.2) if shape[0] > 1 else (0.3, 0.02)
    if name.endswith(("original1", ".embed")):
        return 0.0, 1.0
    if ".lstm.weight" in name:
        return 0.0, 1 / math.sqrt(shape[-1])
    return 0.0, 0.05


def stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in a storage type; masks stay bool."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def duplicates(state: dict) -> Iterator:
    """Names whose tensor already appeared under an earlier name."""
    seen = set()
    for name, tensor in state.items():
        if id(tensor) in seen:
            yield name
        seen.add(id(tensor))

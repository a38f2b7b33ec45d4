"""The same weights in suno's layout: three .pt files and EnCodec's .th."""

import re
from pathlib import Path

import numpy as np
import torch

import shapes
import vocabulary

STAGES = {"semantic": "text.pt", "coarse_acoustics": "coarse.pt", "fine_acoustics": "fine.pt"}
TRANSFORMER_NAMES = [
    (r"^input_embeds_layer\.", "transformer.wte."),
    (r"^input_embeds_layers\.", "transformer.wtes."),
    (r"^position_embeds_layer\.", "transformer.wpe."),
    (r"^layernorm_final\.", "transformer.ln_f."),
    (r"^layers\.", "transformer.h."),
    (r"\.layernorm_", ".ln_"),
    (r"\.attn\.att_proj\.", ".attn.c_attn."),
    (r"\.attn\.out_proj\.", ".attn.c_proj."),
    (r"\.mlp\.in_proj\.", ".mlp.c_fc."),
    (r"\.mlp\.out_proj\.", ".mlp.c_proj."),
]
CODEC_NAMES = [
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
    (r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook."),
    (r"^(en|de)coder\.layers\.", r"\1coder.model."),
]


def rename(name: str, rules: list) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def write(folder: Path, k: shapes.Knobs, state: dict, tokens: list) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = shapes.config(k)
    for stage, filename in STAGES.items():
        save_stage(folder / filename, config[f"{stage}_config"], part(state, stage))
    torch.save(codec_state(part(state, "codec_model"), config["codec_config"]), folder / "encodec_24khz-d7cc33bc.th")
    vocabulary.write(folder, tokens, "vocab", k.lowercase)


def part(state: dict, prefix: str) -> dict:
    return {name[len(prefix) + 1 :]: t for name, t in state.items() if name.startswith(prefix + ".")}


def save_stage(path: Path, config: dict, state: dict) -> None:
    """suno's checkpoint: compiled names, no masks, model_args, a numpy scalar."""
    model = {
        "_orig_mod." + rename(name, TRANSFORMER_NAMES): tensor
        for name, tensor in state.items()
        if tensor.dtype != torch.bool
    }
    args = {
        "n_layer": config["num_layers"], "n_head": config["num_heads"], "n_embd": config["hidden_size"],
        "block_size": config["block_size"], "bias": config["bias"], "dropout": 0.0,
    }  # fmt: skip
    if "n_codes_total" in config:
        args |= {"n_codes_total": config["n_codes_total"], "n_codes_given": config["n_codes_given"]}
    if config["input_vocab_size"] == config["output_vocab_size"]:
        args["vocab_size"] = config["input_vocab_size"]  # some of suno's files have one number for both
    else:
        args["input_vocab_size"] = config["input_vocab_size"]
        args["output_vocab_size"] = config["output_vocab_size"]
    torch.save({"model": model, "model_args": args, "best_val_loss": np.float64(2.5), "iter_num": 7}, path)


def codec_state(state: dict, config: dict) -> dict:
    """EnCodec's names: every convolution sits in a wrapper, transposed ones in another."""
    transposed, position = set(), 2
    for _ in config["upsampling_ratios"]:
        transposed.add(position + 1)
        position += 2 + config["num_residual_layers"]
    renamed = {}
    for name, tensor in state.items():
        name = rename(name, CODEC_NAMES)
        layer = re.match(r"decoder\.model\.(\d+)\.", name)
        wrapper = "convtr.convtr." if layer and int(layer[1]) in transposed else "conv.conv."
        renamed[re.sub(r"(?<!lstm)\.conv\.", "." + wrapper, name)] = tensor
    return renamed

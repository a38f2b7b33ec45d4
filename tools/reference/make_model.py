"""Writes a random Bark checkpoint as a Hugging Face directory, and optionally the same weights as suno's files.

python make_model.py --shape base --out DIR [--seed N] [--dtype f32|f16|bf16]
    [--format bin|legacy|safetensors|save_pretrained|sharded] [--vocab vocab.txt] [--suno DIR]
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from transformers import BarkConfig, BarkModel

import shapes
import suno
import vocabulary
import weights

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def state_of(k: shapes.Knobs) -> dict:
    """The state dict as it is stored. No module is ever allocated: the largest shape needs its 4.4 GB once."""
    if k.init == "default":
        torch.manual_seed(k.seed)
        model = BarkModel(BarkConfig(**shapes.config(k)))
        # One tensor object per storage: tied names are recognised by identity.
        model.to(DTYPES[k.dtype])
        return {name: t.detach() for name, t in model.state_dict(keep_vars=True).items()}
    with torch.device("meta"):
        model = BarkModel(BarkConfig(**shapes.config(k)))
    named = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    return weights.random_state(named, k.seed, k.tied, DTYPES[k.dtype])


def rename_weight_norm(state: dict) -> dict:
    """The names that the published files have."""
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, tensor in state.items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        renamed[name] = tensor
    return renamed


def write_weights(folder: Path, k: shapes.Knobs, state: dict) -> None:
    if k.format in ("save_pretrained", "sharded"):
        save_pretrained(folder, k, state)
        return
    if k.weight_norm == "g_v":
        state = rename_weight_norm(state)
    if k.format in ("bin", "legacy"):
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=k.format == "bin")
    else:
        from safetensors.torch import save_file

        # transformers drops every name but the first of tensors that share storage.
        kept = {name: t for name, t in state.items() if name not in set(weights.duplicates(state))}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def save_pretrained(folder: Path, k: shapes.Knobs, state: dict) -> None:
    """Lets transformers itself write config.json and the weights."""
    model = BarkModel(BarkConfig(**shapes.config(k)))
    model.load_state_dict(state)
    size = {"max_shard_size": "100KB"} if k.format == "sharded" else {}
    model.to(DTYPES[k.dtype]).save_pretrained(folder, **size)


def write_configs(folder: Path, k: shapes.Knobs) -> None:
    if k.format not in ("save_pretrained", "sharded"):
        BarkConfig(**shapes.config(k)).save_pretrained(folder)
    text = json.dumps(shapes.generation_config(k), indent=2)
    (folder / "generation_config.json").write_text(text)


def voice_arrays(k: shapes.Knobs, name: str, voice: shapes.Voice) -> dict:
    """A made-up history prompt; the coarse codes are the first fine codebooks where both exist."""
    rng = np.random.default_rng([k.seed, *name.encode()])
    fine = rng.integers(0, k.codebook, (k.fine_codebooks, max(voice.fine, voice.coarse)))
    return {
        "semantic_prompt": rng.integers(0, k.semantic_vocab, voice.semantic),
        # Published coarse prompts are in Fortran order and fine prompts are 32-bit.
        "coarse_prompt": np.asfortranarray(fine[:2, -voice.coarse :]),
        "fine_prompt": np.ascontiguousarray(fine[:, -voice.fine :]).astype(np.int32),
    }


def write_voices(folder: Path, k: shapes.Knobs) -> None:
    """voices/NAME.npz, or an entry of speaker_embeddings_path.json with its .npy files."""
    listed = {}
    for name, voice in k.voices.items():
        arrays = voice_arrays(k, name, voice)
        if voice.layout == "npy":
            listed[name] = {}
            for key, array in arrays.items():
                path = f"speaker_embeddings/{name}_{key}.npy"
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                np.save(folder / path, array)
                listed[name][key] = path
        else:
            path = folder / "voices" / f"{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            (np.savez_compressed if voice.layout == "deflated" else np.savez)(path, **arrays)
    if listed:
        text = json.dumps({"repo_or_path": "elsewhere/bark"} | listed, indent=2)
        (folder / "speaker_embeddings_path.json").write_text(text)


def write_model(folder: Path, k: shapes.Knobs, vocab: Path | None = None, suno_folder: Path | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = state_of(k)
    if k.used_rows:
        used_texts = range(k.text_offset, k.text_offset + k.used_rows)
        used_codes = [k.semantic_vocab + k.codebook * book + code for book in (0, 1) for code in range(k.used_rows)]
        kept = [k.eos, k.text_pad, k.infer, k.coarse_pad, k.coarse_infer, *used_texts, *used_codes]
        weights.thin(state, k.used_rows, kept)
    write_weights(folder, k, state)
    write_configs(folder, k)
    tokens = vocab.read_text(encoding="utf-8").splitlines() if vocab else vocabulary.made_up(k.words or k.pieces)
    if len(tokens) > k.pieces:
        raise SystemExit(f"{vocab} has {len(tokens)} entries; the shape has room for {k.pieces}")
    vocabulary.write(folder, tokens, k.tokenizer, k.lowercase, k.strip_accents)
    write_voices(folder, k)
    if suno_folder:
        suno.write(suno_folder, k, state, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=shapes.SHAPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--format", choices=["bin", "legacy", "safetensors", "save_pretrained", "sharded"])
    parser.add_argument("--vocab", type=Path, help="a real vocab.txt instead of a made-up one")
    parser.add_argument("--suno", type=Path, help="also write text.pt, coarse.pt, fine.pt and the codec's .th here")
    args = parser.parse_args()
    changes = {name: getattr(args, name) for name in ("seed", "dtype", "format") if getattr(args, name) is not None}
    write_model(args.out, dataclasses.replace(shapes.SHAPES[args.shape], **changes), args.vocab, args.suno)


if __name__ == "__main__":
    main()

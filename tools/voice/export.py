"""Writes the trained model as a Hugging Face directory, which `barkd convert` and transformers' BarkModel both load.

    python export.py DATA RUNS OUT

RUNS holds codec/, semantic/, coarse/ and fine/ with their checkpoints; a stage without one gets random weights, to try the
rest of the chain.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import BarkConfig, BarkModel

import coarse
import decoder
import design
import fine
import semantic
import training
from train_coarse import silence

# Sharper than trained: the temperatures that servers use by default (0.7, 0.7, 0.5) then make few slips.
SHARPNESS = {"semantic": 1.6, "coarse": 1.6, "fine": 3.0}
# It has seldom heard two sentences in a row and stops between them: servers cut texts by this, so that pieces are short.
PIECE_TOKENS = 200
VOICE_NAMES = {"slt": "slt", "rms": "rms"}


def config() -> dict:
    def stack(module, positions: int, inputs: int, outputs: int) -> dict:
        return {
            "num_layers": module.LAYERS, "num_heads": module.HEADS, "hidden_size": module.WIDTH, "bias": False,
            "dropout": 0.0, "block_size": positions, "input_vocab_size": inputs, "output_vocab_size": outputs,
        }  # fmt: skip

    return {
        "semantic_config": stack(
            semantic, design.MAX_TEXT + design.MAX_SEMANTIC, design.SEMANTIC_IN, design.SEMANTIC_OUT
        ),
        "coarse_acoustics_config": stack(coarse, coarse.POSITIONS, design.COARSE_VOCAB, design.COARSE_VOCAB),
        "fine_acoustics_config": stack(fine, design.FINE_WINDOW, fine.ROWS, fine.ROWS)
        | {"n_codes_total": design.N_CODES, "n_codes_given": 1, "tie_word_embeddings": True},
        "codec_config": {
            "model_type": "encodec", "sampling_rate": design.SAMPLE_RATE, "hidden_size": decoder.HIDDEN,
            "num_filters": decoder.FILTERS, "upsampling_ratios": list(design.RATIOS), "num_lstm_layers": 1,
            "kernel_size": decoder.KERNEL, "last_kernel_size": decoder.KERNEL, "codebook_size": design.CODES,
            # kbit/s for exactly the codebooks we have
            "target_bandwidths": [(design.N_CODES + 0.5) * design.FRAME_RATE * 10 / 1000],
        },
    }  # fmt: skip


def generation_config() -> dict:
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1.0, "renormalize_logits": True}
    return {
        "model_type": "bark", "sample_rate": design.SAMPLE_RATE, "codebook_size": design.CODES,
        "_from_model_config": False,
        "semantic_config": {
            "model_type": "semantic", "eos_token_id": design.EOS, "pad_token_id": design.EOS,
            "semantic_pad_token": design.EOS, "max_new_tokens": PIECE_TOKENS,
            "text_encoding_offset": design.TEXT_OFFSET, "text_pad_token": design.TEXT_PAD,
            "semantic_infer_token": design.SEMANTIC_INFER, "semantic_vocab_size": design.SEMANTIC_VOCAB,
            "max_input_semantic_length": design.MAX_TEXT, "semantic_rate_hz": float(design.SEMANTIC_RATE),
        } | sampling,
        "coarse_acoustics_config": {
            "model_type": "coarse_acoustics", "coarse_semantic_pad_token": design.COARSE_PAD,
            "coarse_infer_token": design.COARSE_INFER, "coarse_rate_hz": float(design.FRAME_RATE),
            "n_coarse_codebooks": design.N_COARSE, "max_coarse_input_length": design.COARSE_PREFIX,
            "max_coarse_history": design.COARSE_HISTORY, "sliding_window_len": design.COARSE_WINDOW,
        } | sampling,
        "fine_acoustics_config": {
            "model_type": "fine_acoustics", "max_fine_input_length": design.FINE_WINDOW,
            "max_fine_history_length": design.FINE_HISTORY, "n_fine_codebooks": design.N_CODES, "temperature": 0.5,
        },
    }  # fmt: skip


def trunk_state(trunk) -> dict:
    """The names of transformers for positions, blocks and final norm."""
    renamed = {"att_proj": "attn.att_proj", "out_proj": "attn.out_proj", "mlp_in": "mlp.in_proj", "mlp_out": "mlp.out_proj"}
    out = {}
    for name, value in trunk.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers":
            parts[2] = renamed.get(parts[2], parts[2])
        elif parts[0] == "position":
            parts[0] = "position_embeds_layer"
        else:
            parts[0] = "layernorm_final"
        out[".".join(parts)] = value.clone()
    return out


def sharpen(state: dict, factor: float) -> dict:
    for name in ("layernorm_final.weight", "layernorm_final.bias"):
        if name in state:
            state[name] *= factor
    return state


def causal_state(stage, sharpness: float) -> dict:
    table, head = stage.plain_tables()
    state = trunk_state(stage.trunk) | {"input_embeds_layer.weight": table, "lm_head.weight": head}
    return sharpen(state, sharpness)


def fine_state(stage, sharpness: float) -> dict:
    state = trunk_state(stage.trunk)
    for i, table in enumerate(stage.tables):
        state[f"input_embeds_layers.{i}.weight"] = table.weight.detach()
    return sharpen(state, sharpness)


def conv_state(prefix: str, conv) -> dict:
    """Weight norm's two parts and the bias; the norm is over all but the first dimension."""
    weight = conv.weight.detach()
    return {
        f"{prefix}.conv.parametrizations.weight.original0": weight.norm(dim=(1, 2), keepdim=True),
        f"{prefix}.conv.parametrizations.weight.original1": weight.clone(),
        f"{prefix}.conv.bias": conv.bias.detach(),
    }


def codec_state(d: decoder.Decoder) -> dict:
    state = conv_state("decoder.layers.0", d.first.conv)
    state |= {f"decoder.layers.1.lstm.{name}": value for name, value in d.lstm.state_dict().items()}
    at = 3
    for up, residual in zip(d.ups, d.residuals, strict=True):
        state |= conv_state(f"decoder.layers.{at}", up.conv)
        for part, conv in (("block.1", residual.first), ("block.3", residual.second), ("shortcut", residual.shortcut)):
            state |= conv_state(f"decoder.layers.{at + 1}.{part}", conv.conv)
        at += 3
    state |= conv_state(f"decoder.layers.{at}", d.last.conv)
    for i, table in enumerate(d.tables):
        state[f"quantizer.layers.{i}.codebook.embed"] = table.detach().clone()
    return state


def load(module, path: Path):
    if path.exists():
        module.load_state_dict(training.weights(path))
    else:
        print(f"{path} is missing: random weights")
    return module.eval()


def build(runs: Path) -> BarkModel:
    stages = {
        name: load(kind(), runs / name / f"{name}.pt")
        for name, kind in (("semantic", semantic.Semantic), ("coarse", coarse.Coarse), ("fine", fine.Fine), ("codec", decoder.Decoder))
    }  # fmt: skip
    model = BarkModel(BarkConfig(**config())).eval()
    for module, state in (
        (model.semantic, causal_state(stages["semantic"], SHARPNESS["semantic"])),
        (model.coarse_acoustics, causal_state(stages["coarse"], SHARPNESS["coarse"])),
        (model.fine_acoustics, fine_state(stages["fine"], SHARPNESS["fine"])),
        (model.codec_model, codec_state(stages["codec"])),
    ):
        odd = module.load_state_dict({k: v.contiguous() for k, v in state.items()}, strict=False)
        missing = [k for k in odd.missing_keys if not k.startswith(("encoder.", "lm_heads.")) and "codebook." not in k and not k.endswith("attn.bias")]
        if missing or odd.unexpected_keys:
            raise SystemExit(f"missing {missing}, unexpected {odd.unexpected_keys}")
    model.fine_acoustics.tie_weights()
    return model


def write_tokenizer(folder: Path) -> None:
    settings = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": True, "tokenize_chinese_chars": True,
        "model_max_length": 512, "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    (folder / "vocab.txt").write_text("\n".join(design.TEXT_VOCAB) + "\n", encoding="utf-8")


def write_voices(folder: Path, data: Path) -> None:
    for voice, codes in silence(data).items():
        token = design.VOICE_TOKEN + design.VOICES.index(voice)
        fine_prompt = codes.T.astype(np.int32)
        np.savez(
            folder / f"{VOICE_NAMES[voice]}.npz",
            semantic_prompt=np.full(design.PRESET_TOKENS, token, np.int64),
            coarse_prompt=fine_prompt[: design.N_COARSE].astype(np.int64),
            fine_prompt=fine_prompt,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    model = build(args.runs)
    # transformers itself drops the second name of tied tensors; the encoder is never used.
    state = {
        k: v.detach().contiguous() for k, v in model.state_dict().items()
        if ".lm_heads." not in k and not k.startswith("codec_model.encoder")
    }  # fmt: skip
    save_file(state, args.out / "model.safetensors", metadata={"format": "pt"})
    BarkConfig(**config()).save_pretrained(args.out)
    (args.out / "generation_config.json").write_text(json.dumps(generation_config(), indent=2))
    write_tokenizer(args.out)
    write_voices(args.out, args.data)
    print(f"{sum(v.numel() for v in state.values()) / 1e6:.2f} M numbers in {args.out}")


if __name__ == "__main__":
    main()

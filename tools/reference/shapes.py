"""Shapes of random Bark models: one Knobs per shape, and the JSON configurations that follow from it.

A Knobs holds every number a checkpoint can choose. The defaults are a scaled-down Bark: the same layout
and the same relations between constants, small enough for a test. The real sizes are at the end.
"""

import dataclasses
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stack:
    """Size of one transformer."""

    layers: int = 2
    heads: int = 2
    width: int = 24
    bias: bool = False


@dataclass(frozen=True)
class Voice:
    """Lengths of a made-up history prompt: semantic tokens, coarse frames, fine frames."""

    semantic: int
    coarse: int
    fine: int
    layout: str = "npz"  # npz, deflated, or npy (listed in speaker_embeddings_path.json)


@dataclass(frozen=True)
class Knobs:
    semantic: Stack = Stack()
    coarse: Stack = Stack()
    fine: Stack = Stack()
    tied: bool = True  # fine heads share storage with the fine tables

    # Vocabularies. Text ids follow the semantic ids and `spare` unused ones, as in the real model.
    pieces: int = 220
    words: int = 0  # entries the vocabulary really has; 0: all of `pieces`
    used_rows: int = 0  # rows of a large table that are not zero; 0: all
    semantic_vocab: int = 60
    spare: int = 4
    eos_gap: int = 0  # unused ids between the last semantic token and the end token, below `spare`
    codebook: int = 32
    codebook_spare: int = 4

    # Windows, in tokens, and rates, in hertz.
    text_length: int = 20
    max_new: int = 40
    semantic_rate: float = 49.9
    coarse_rate: float = 75
    coarse_input: int = 20
    coarse_history: int = 48
    window: int = 12
    fine_input: int = 64
    fine_history: int = 32
    context: int = 0  # positions every transformer has at least; 0: exactly what the windows need

    fine_codebooks: int = 8  # transformers fails unless n_codes_total equals n_fine_codebooks
    codes_given: int = 1

    # EnCodec.
    ratios: tuple = (4, 3, 2)
    filters: int = 4
    codec_hidden: int = 12
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    residual_layers: int = 1
    dilation_growth: int = 2
    compress: int = 2
    lstm_layers: int = 2
    conv_shortcut: bool = True
    codec_codebook: int = 0  # a power of two; 0: the first that holds `codebook`
    quantizers: int = 9
    sample_rate: int = 24000

    # The directory.
    seed: int = 1
    dtype: str = "f32"  # f32, f16, bf16
    format: str = "bin"  # bin, legacy (torch before 1.6), safetensors, save_pretrained, sharded (the same in pieces)
    init: str = "varied"  # weights of weights.py, or "default": transformers' own initialisation
    weight_norm: str = "g_v"  # g_v or parametrizations
    tokenizer: str = "both"  # vocab.txt, tokenizer.json, both, or saved: what transformers writes
    lowercase: bool = False
    strip_accents: bool | None = None  # None: as `lowercase`
    sparse_generation: bool = False  # leave out every generation setting that equals transformers' default
    voices: dict = field(default_factory=dict)

    @property
    def codec_codebook_size(self) -> int:
        return self.codec_codebook or 1 << (self.codebook - 1).bit_length()

    @property
    def eos(self) -> int:
        return self.semantic_vocab + self.eos_gap

    @property
    def text_offset(self) -> int:
        return self.semantic_vocab + self.spare

    @property
    def text_pad(self) -> int:
        return self.text_offset + self.pieces

    @property
    def infer(self) -> int:
        return self.text_pad + 4

    @property
    def coarse_pad(self) -> int:
        return self.semantic_vocab + 2 * self.codebook

    @property
    def coarse_infer(self) -> int:
        return self.coarse_pad + 2


def config(k: Knobs) -> dict:
    """config.json as BarkConfig takes it."""

    def stack(s: Stack, block_size: int, vocab_in: int, vocab_out: int) -> dict:
        return {
            "num_layers": s.layers, "num_heads": s.heads, "hidden_size": s.width, "bias": s.bias,
            "dropout": 0.0, "block_size": max(block_size, k.context),
            "input_vocab_size": vocab_in, "output_vocab_size": vocab_out,
        }  # fmt: skip

    coarse_vocab = k.coarse_pad + k.spare
    return {
        "semantic_config": stack(k.semantic, k.text_length + k.max_new, k.infer + 1, k.text_offset),
        "coarse_acoustics_config": stack(
            k.coarse, k.coarse_input + k.coarse_history + k.window, coarse_vocab, coarse_vocab
        ),
        "fine_acoustics_config": stack(
            k.fine, k.fine_input, k.codebook + k.codebook_spare, k.codebook + k.codebook_spare
        )
        | {
            "n_codes_total": k.fine_codebooks,
            "n_codes_given": k.codes_given,
            "tie_word_embeddings": k.tied,
        },
        "codec_config": {
            "model_type": "encodec",
            "target_bandwidths": [bandwidth(k)],
            "sampling_rate": k.sample_rate,
            "hidden_size": k.codec_hidden,
            "num_filters": k.filters,
            "num_residual_layers": k.residual_layers,
            "upsampling_ratios": list(k.ratios),
            "kernel_size": k.kernel,
            "last_kernel_size": k.last_kernel,
            "residual_kernel_size": k.residual_kernel,
            "dilation_growth_rate": k.dilation_growth,
            "compress": k.compress,
            "num_lstm_layers": k.lstm_layers,
            "codebook_size": k.codec_codebook_size,
            "use_conv_shortcut": k.conv_shortcut,
        },
    }


def bandwidth(k: Knobs) -> float:
    """The bandwidth, in kbit/s, that makes EncodecConfig build `quantizers` codebooks."""
    hop = 1
    for ratio in k.ratios:
        hop *= ratio
    frame_rate = -(-k.sample_rate // hop)
    bits = (k.codec_codebook_size - 1).bit_length()
    return (k.quantizers + 0.5) * frame_rate * bits / 1000


def generation_config(k: Knobs) -> dict:
    """generation_config.json in the nested layout of the published models.

    BarkGenerationConfig.save_pretrained fails in transformers 5.23, so it is written by hand. The
    sampling settings are those of the published files: greedy runs must override them.
    """
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1.0, "renormalize_logits": True}
    if k.sparse_generation:
        sampling = {}
    semantic = {
        "eos_token_id": k.eos, "pad_token_id": k.eos, "max_new_tokens": k.max_new,
        "text_encoding_offset": k.text_offset, "text_pad_token": k.text_pad,
        "semantic_pad_token": k.eos, "semantic_infer_token": k.infer,
        "semantic_vocab_size": k.semantic_vocab, "max_input_semantic_length": k.text_length,
        "semantic_rate_hz": k.semantic_rate,
    }  # fmt: skip
    coarse = {
        "coarse_semantic_pad_token": k.coarse_pad, "coarse_infer_token": k.coarse_infer,
        "coarse_rate_hz": k.coarse_rate, "n_coarse_codebooks": 2,
        "max_coarse_input_length": k.coarse_input, "max_coarse_history": k.coarse_history,
        "sliding_window_len": k.window,
    }  # fmt: skip
    fine = {
        "max_fine_input_length": k.fine_input, "max_fine_history_length": k.fine_history,
        "n_fine_codebooks": k.fine_codebooks,
    }  # fmt: skip
    if k.sparse_generation:
        semantic, coarse, fine = (drop_defaults(s) for s in (semantic, coarse, fine))
    else:
        fine |= {"temperature": 0.5}
    return {
        "_from_model_config": False,
        "model_type": "bark",
        "sample_rate": k.sample_rate,
        "codebook_size": k.codebook,
        "semantic_config": {"model_type": "semantic"} | semantic | sampling,
        "coarse_acoustics_config": {"model_type": "coarse_acoustics"} | coarse | sampling,
        "fine_acoustics_config": {"model_type": "fine_acoustics"} | fine,
    }


DEFAULTS = {
    "eos_token_id": 10000, "max_new_tokens": 768, "text_encoding_offset": 10048, "text_pad_token": 129595,
    "semantic_infer_token": 129599, "semantic_vocab_size": 10000, "max_input_semantic_length": 256,
    "semantic_rate_hz": 49.9, "coarse_semantic_pad_token": 12048, "coarse_rate_hz": 75,
    "n_coarse_codebooks": 2, "coarse_infer_token": 12050, "max_coarse_input_length": 256,
    "max_coarse_history": 630, "sliding_window_len": 60, "max_fine_history_length": 512,
    "max_fine_input_length": 1024, "n_fine_codebooks": 8,
}  # fmt: skip


def drop_defaults(settings: dict) -> dict:
    """The settings that differ from transformers' class defaults."""
    return {name: v for name, v in settings.items() if DEFAULTS.get(name) != v and name != "semantic_pad_token"}


def vary(**changes) -> Knobs:
    return dataclasses.replace(Knobs(), **changes)


SHORT = Voice(semantic=10, coarse=15, fine=15)
LONG = Voice(semantic=90, coarse=135, fine=135)
ODD = Voice(semantic=19, coarse=28, fine=28, layout="npy")

TRUE_CONSTANTS = {
    "pieces": 119547, "semantic_vocab": 10000, "spare": 48, "codebook": 1024, "codebook_spare": 32,
    "text_length": 256, "max_new": 768, "coarse_input": 256, "coarse_history": 630, "window": 60,
    "fine_input": 1024, "fine_history": 512, "context": 1024,
}  # fmt: skip


def real(layers: int, heads: int, width: int) -> Knobs:
    """The published models: every constant and size as theirs."""
    stack = Stack(layers, heads, width)
    codec = {"ratios": (8, 5, 4, 2), "filters": 32, "codec_hidden": 128, "quantizers": 32}
    return vary(semantic=stack, coarse=stack, fine=stack, **TRUE_CONSTANTS, **codec)


SHAPES = {
    "base": vary(voices={"short": SHORT, "v2/long": LONG, "odd": ODD}),
    "bias": vary(semantic=Stack(2, 4, 24, True), coarse=Stack(1, 2, 16, True), fine=Stack(2, 1, 20, True), context=100),
    "half": vary(dtype="f16", voices={"short": SHORT}, lowercase=True),
    "safetensors": vary(dtype="f16", format="safetensors", weight_norm="parametrizations", tokenizer="json"),
    "windows": vary(
        dtype="f16",
        text_length=33,
        max_new=37,
        coarse_input=17,
        coarse_history=31,
        window=7,
        fine_input=50,
        fine_history=13,
        voices={"short": SHORT, "long": LONG},
    ),
    "codec": vary(
        dtype="f16",
        codebook=27,
        codebook_spare=5,
        fine_codebooks=5,
        quantizers=6,
        semantic_rate=33.3,
        coarse_rate=80,
        sample_rate=16000,
        ratios=(5, 2, 3, 2),
        filters=2,
        codec_hidden=10,
        lstm_layers=3,
        residual_layers=2,
        kernel=5,
        last_kernel=3,
        residual_kernel=5,
        conv_shortcut=False,
        voices={"short": Voice(12, 28, 28)},
    ),
    "untied": vary(
        dtype="f16",
        tied=False,
        fine=Stack(1, 3, 18),
        codec_codebook=64,
        lstm_layers=1,
        residual_layers=3,
        dilation_growth=3,
        compress=4,
        filters=8,
        ratios=(2, 2),
        weight_norm="parametrizations",
        fine_codebooks=4,
    ),
    # The published constants over tiny transformers: suno's files state none, and here the generation config leaves
    # all to transformers' defaults. Most rows are zero, so that the files compress.
    "suno": vary(
        semantic=Stack(2, 2, 16),
        coarse=Stack(1, 2, 16),
        fine=Stack(1, 2, 8),
        sparse_generation=True,
        dtype="f16",
        words=220,
        used_rows=300,
        filters=2,
        quantizers=8,
        voices={"short": SHORT},
        **TRUE_CONSTANTS,
    ),
    "bark-small": real(12, 12, 768),
    "bark": real(24, 16, 1024),
}

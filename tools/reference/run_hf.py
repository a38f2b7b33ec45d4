"""Runs one Hugging Face Bark directory greedily with transformers and keeps the tokens of every stage.

    python run_hf.py DIR --text TEXT [--voice NAME|FILE.npz] [--max-tokens N] [--min-eos-p P]
        [--float64] -o OUT.npz

The weights are converted to float32 when they are loaded, whatever the type on disk; --float64 computes in
double precision. OUT holds semantic (without the end token), coarse and fine (codes without offsets),
audio, and margins: for each stage the smallest gap between the best and the second best legal logit.
"""

import argparse
import functools
from pathlib import Path

import numpy as np
import torch
from transformers import BarkModel, BarkProcessor
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
GREEDY = {"do_sample": False, "fine_temperature": None}


class Recorder:
    """Stands between BarkModel and its stages: keeps what they return and how close every choice was."""

    def __init__(self, model: BarkModel):
        generation = model.generation_config
        self.semantic_vocab = generation.semantic_config.get("semantic_vocab_size", 10000)
        self.eos = generation.semantic_config.get("eos_token_id", 10000)
        self.codebook = generation.codebook_size
        self.tokens = {}
        self.margins = {}
        self.step = 0
        for stage in ("semantic", "coarse_acoustics", "fine_acoustics"):
            module = getattr(model, stage)
            name = stage.split("_")[0]
            module.generate = self.keeping(name, module.generate)
            module.forward = self.watching(getattr(self, f"{name}_margin"), module.forward)

    def keeping(self, name: str, generate):
        def wrapper(*args, **kwargs):
            output = generate(*args, **kwargs)
            self.tokens[name] = output.clone()  # the next stage overwrites end tokens in place
            return output

        return wrapper

    @staticmethod
    def watching(margin, forward):
        @functools.wraps(forward)  # generate reads the signature
        def wrapper(*args, **kwargs):
            output = forward(*args, **kwargs)
            margin(output.logits)
            return output

        return wrapper

    def note(self, stage: str, logits: torch.Tensor) -> None:
        best = logits.double().topk(2, dim=-1).values
        gap = (best[..., 0] - best[..., 1]).min().item()
        self.margins[stage] = min(gap, self.margins.get(stage, gap))

    def semantic_margin(self, logits: torch.Tensor) -> None:
        logits = logits[0, -1]
        self.note("semantic", torch.cat([logits[: self.semantic_vocab], logits[self.eos : self.eos + 1]]))

    def coarse_margin(self, logits: torch.Tensor) -> None:
        # A call with several positions is the prompt of a window; transformers counts codebooks from there and
        # limits the second one from below only.
        self.step = 0 if logits.shape[1] > 1 else self.step + 1
        start = self.semantic_vocab + self.codebook * (self.step % 2)
        stop = None if self.step % 2 else start + self.codebook
        self.note("coarse", logits[0, -1, start:stop])

    def fine_margin(self, logits: torch.Tensor) -> None:
        self.note("fine", logits[0, :, : self.codebook])


class Reference:
    """One loaded model."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32):
        self.model = BarkModel.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
        self.processor = BarkProcessor.from_pretrained(folder, local_files_only=True)
        self.recorder = Recorder(self.model)

    def run(self, text: str, voice: str | None = None, max_tokens: int = 0, min_eos_p: float = 0.0) -> dict:
        """The arrays of one greedy generation."""
        recorder = self.recorder
        recorder.tokens, recorder.margins = {}, {}
        settings = self.model.generation_config.semantic_config
        length = settings.get("max_input_semantic_length", 256)
        inputs = self.processor(text, voice_preset=voice, max_length=length)
        options = dict(GREEDY)
        if max_tokens:
            options["semantic_max_new_tokens"] = max_tokens
        if min_eos_p:
            options["semantic_min_eos_p"] = min_eos_p
        with torch.no_grad():
            audio = self.model.generate(**inputs, **options)
        semantic = recorder.tokens["semantic"][0].numpy()
        coarse = recorder.tokens["coarse"][0].reshape(-1, 2).T - recorder.semantic_vocab
        return {
            "text_ids": inputs["input_ids"][0][inputs["attention_mask"][0] == 1].numpy().astype(np.int32),
            "semantic": semantic[semantic != recorder.eos].astype(np.int32),
            "coarse": np.remainder(coarse.numpy(), recorder.codebook).astype(np.int32),
            "fine": recorder.tokens["fine"][0].numpy().astype(np.int32),
            "audio": audio[0].double().numpy(),
            "margins": np.array([recorder.margins[s] for s in ("semantic", "coarse", "fine")]),
            "ended": np.array(bool((semantic == recorder.eos).any())),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--voice")
    parser.add_argument("--max-tokens", type=int, default=0)
    parser.add_argument("--min-eos-p", type=float, default=0.0)
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    reference = Reference(args.folder, torch.float64 if args.float64 else torch.float32)
    arrays = reference.run(args.text, args.voice, args.max_tokens, args.min_eos_p)
    np.savez(args.out, **arrays)
    shapes = ", ".join(f"{name} {arrays[name].shape}" for name in ("semantic", "coarse", "fine", "audio"))
    print(f"{shapes}; margins {arrays['margins'].round(6).tolist()}; ended {bool(arrays['ended'])}")


if __name__ == "__main__":
    main()

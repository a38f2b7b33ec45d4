"""Made-up WordPiece vocabularies and the tokenizer files around them."""

import itertools
import json
from pathlib import Path

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PUNCTUATION = list("!\"',-.:;?()") + ["…", "¿"]
LETTERS = list("abcdefghijklmnopqrstuvwxyzABHT") + list("éèçüñßÀдя") + list("你好世界あい♪")
WORDS = ["the", "Hello", "hello", "world", "speech", "is", "a", "test", "wave", "français", "Ünder", "sound"]
TAILS = ["s", "ing", "ed", "er", "ly", "ion", "ment", "orld", "é"]


def made_up(n: int) -> list:
    """n distinct entries: specials, punctuation, letters, words, tails, then syllables.

    From 1000 entries on the specials have the ids of bert-base-multilingual-cased.
    """
    head = list(SPECIAL)
    if n >= 1000:
        head = [SPECIAL[0]] + [f"[unused{i}]" for i in range(1, 100)] + SPECIAL[1:]
    syllables = (
        mark + "".join(parts)
        for length in itertools.count(2)
        for parts in itertools.product("kstnmrlpdgbfv", "aeiou", *["" if length < 3 else "nrsaeiou"] * (length - 2))
        for mark in ("", "##")
    )
    entries = dict.fromkeys(
        itertools.chain(
            head, PUNCTUATION, LETTERS, ("##" + letter for letter in LETTERS if letter.isalpha()), WORDS,
            ("##" + tail for tail in TAILS),
        )
    )  # fmt: skip
    for syllable in syllables:
        if len(entries) >= n:
            break
        entries.setdefault(syllable)
    return list(entries)[:n]


def write(folder: Path, tokens: list, files: str, lowercase: bool = False, strip_accents: bool | None = None) -> None:
    """Writes vocab.txt, tokenizer.json or both, and tokenizer_config.json, as the published models have them.

    With files "saved" transformers writes its own version of them.
    """
    settings = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, "strip_accents": strip_accents,
        "tokenize_chinese_chars": True, "model_max_length": 512, "do_basic_tokenize": True, "never_split": None,
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    if files in ("vocab", "both"):
        (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    if files in ("json", "both", "saved"):
        text = json.dumps(tokenizer_json(tokens, lowercase, strip_accents), ensure_ascii=False, indent=1)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    if files == "saved":
        from transformers import BarkProcessor, BertTokenizer

        BarkProcessor(BertTokenizer.from_pretrained(folder)).save_pretrained(folder)


def tokenizer_json(tokens: list, lowercase: bool, strip_accents: bool | None) -> dict:
    """The fast tokenizer of transformers for a BERT vocabulary."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(SPECIAL)
    return json.loads(tokenizer.to_str())

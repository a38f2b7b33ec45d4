"""Writes tokenizer_cases.tsv and tokenizer_vocab.tsv from the reference tokenizers.

    python tokenizer_cases.py bert-base-multilingual-cased-vocab.txt bark-golden.json

Needs transformers 5. `hf` is BertTokenizerFast, `suno` is the slow tokenizer after Bark's own
collapsing of spaces. Texts must stay clear of characters whose category depends on the version of
Unicode, and of capital sigma where a variant lower-cases.
"""

import json
import re
import sys
import unicodedata

from transformers import BertTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# name of the variant: do_lower_case, strip_accents
VARIANTS = {
    "cased": (False, False),
    "cased-stripped": (False, True),
    "lower": (True, False),
    "lower-stripped": (True, True),
}
TEXTS = [
    "isn't it $5.00 + 10% = `fine`? {yes} ~ <no> ^|@#&*",
    "Dvořák, Gödel, Erdős, Ångström, Łódź, İstanbul, STRASSE, Straße",
    "e\u0301te\u0301 été Zoe\u0308",
    "q\u0323\u0307 q\u0307\u0323 \u0344 \u212b \u1e9b\u0323",
    "J\u030cUST ǰust",
    "東京タワーへ行きます。ひらがな カタカナ",
    "漢字ABC漢\u0301 \u3400\ufa0e\uf900\U00020000\U0002b830\U0002b930\U0002f800",
    "안녕하세요 한국어",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8",
    "Привет, мир! ПРИВЕТ Ёлка йод",
    "مرحبا بالعالم، كيف؟ نَصٌّ",
    "שלום עולם שָׁלוֹם",
    "नमस्ते दुनिया। ภาษาไทย ดี",
    "Xin chào thế giới Tiếng Việt",
    "¿Qué? ¡Sí! «oui» „ja“ — … ‘a’ ·",
    "♪ la ♫ ☃ € £ © ™ ½ x² ﬁn",
    "smile 😀 family 👨\u200d👩\u200d👧 flag 🇩🇪 keycap 1\ufe0f\u20e3",
    "tab\there\nand\r\nthere  two   three",
    "a\u00a0b\u2003c\u3000d\u1680e\u202ff\u205fg",
    "line\u2028para\u2029end",
    "a\u000bb\u000cc\u001cd\u001de\u001ef\u001fg\u0085h",
    "soft\u00adhyphen zero\u200bwidth joi\u200dner \ufeffbom l\u200er\u200f",
    "nul\u0000byte \u0000 \u0007bell es\u001bc del\u007fete \u0080\u009f",
    "repl\ufffdaced private\ue000use unas\u0378signed \ufdd0 \U000e0041tag",
    "[MASK] [CLS]and[SEP] x[PAD]y [UNK] [[MASK]] [mask] [MASK",
    "[MA\u00adSK] [MA\u200bSK]x [ MASK ]",
    "[MASK]\u0301 [SEP]\u00a0\n[SEP]",
    "[laughs] [music] — [clears throat] CAPITALS",
    "a" * 100,
    "a" * 101,
    "é" * 100,
    "é" * 101,
    "e\u0301" * 100,
    "b" * 100 + "," + "b" * 101 + " c",
    "x" * 99 + "漢",
    "unbelievablyqzxjword ok",
    "hello\U0001f600world ok",
    " leading and trailing \t",
    "\u200b",
    "!!!???...",
    "co-operate (re)do a/b\\c under_score e-mail@x.org",
    "1234567890 3.14 1,000 12:30",
]


def escaped(text):
    out = ""
    for c in text:
        if c == "\\" or unicodedata.category(c)[0] in "CZM" and c != " ":
            out += "\\{%x}" % ord(c)
        else:
            out += c
    return out


def main(vocab_path, golden_path):
    with open(vocab_path, encoding="utf-8") as f:
        vocab = [line.rstrip("\n") for line in f]
    with open(golden_path, encoding="utf-8") as f:
        golden = json.load(f)["tokenizer"]
    lines = [f"both\tcased\t{g['text']}\t{' '.join(map(str, g['ids']))}" for g in golden]
    seen = {g["text"] for g in golden}
    for name, (lower, strip) in VARIANTS.items():
        fast = BertTokenizerFast(
            vocab={w: i for i, w in enumerate(vocab)}, do_lower_case=lower, strip_accents=strip
        )
        slow = BertTokenizerLegacy(vocab_path, do_lower_case=lower, strip_accents=strip)
        for text in TEXTS + [g["text"] for g in golden]:
            if lower and "Σ" in text:
                raise SystemExit("capital sigma in a lower-cased text: " + text)
            collapsed = re.sub(r"\s+", " ", text).strip()
            hf = fast(text, add_special_tokens=False)["input_ids"]
            suno = slow(collapsed, add_special_tokens=False)["input_ids"]
            seen |= {form for base in (text, text.lower()) for form in (
                base, *(unicodedata.normalize(n, base) for n in ("NFC", "NFD")),
                "".join(c for c in unicodedata.normalize("NFD", base)
                        if unicodedata.category(c)[0] != "M"))}
            rows = [("both", hf)] if hf == suno else [("hf", hf), ("suno", suno)]
            for rules, ids in rows:
                lines.append(f"{rules}\t{name}\t{escaped(text)}\t{' '.join(map(str, ids))}")
    with open("tokenizer_cases.tsv", "w", encoding="utf-8") as f:
        f.write("# rules\tvariant\ttext\tids; made by tokenizer_cases.py\n")
        f.writelines(line + "\n" for line in dict.fromkeys(lines))
    # Dropped characters join what stands around them.
    seen |= {"".join(c for c in t if unicodedata.category(c)[0] != "C" and c != "\ufffd")
             for t in seen}
    haystack = "\n".join(seen)
    with open("tokenizer_vocab.tsv", "w", encoding="utf-8") as f:
        for i, piece in enumerate(vocab):
            body = piece[2:] if piece.startswith("##") and len(piece) > 2 else piece
            if piece in SPECIAL or body in haystack:
                f.write(f"{i}\t{piece}\n")


main(*sys.argv[1:])

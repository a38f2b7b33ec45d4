"""The numbers of the model and the meaning of its tokens. Every other file takes them from here.

Semantic token (25 Hz): phone × {onset, continuation} × index modulo 64 of the letter being read; two more name the voices.
Codes (50 Hz): 0 the spectral envelope, 1 pitch and phase of the pulse train, 2 and 3 what the envelope code leaves.
"""

from records import PHONES

VOICES = ("slt", "rms")

# Rates. A semantic token is exactly two codec frames, so that phones begin on frames.
SAMPLE_RATE = 24000
SEMANTIC_RATE = 25
FRAME_RATE = 50
HOP = SAMPLE_RATE // FRAME_RATE
RATIOS = (8, 5, 4, 3)  # of the decoder's upsampling; the product is HOP

# Semantic vocabulary.
LETTERS = 36  # the pointer's modulus
N_PHONES = len(PHONES)
N_UNITS = 2 * N_PHONES  # onsets, then continuations
VOICE_TOKEN = N_UNITS * LETTERS  # + index of the voice
SEMANTIC_VOCAB = VOICE_TOKEN + len(VOICES)
EOS = SEMANTIC_VOCAB
TEXT_OFFSET = EOS + 1

# Text vocabulary: a WordPiece one that spells, lower case.
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTER_LIST = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [chr(c) for c in range(ord("0"), ord("9") + 1)]
MARKS = [chr(c) for c in range(33, 127) if not chr(c).isalnum()] + list("’‘“”–—…")
TEXT_VOCAB = SPECIAL + LETTER_LIST + MARKS + ["##" + c for c in LETTER_LIST]
TEXT_ID = {token: i for i, token in enumerate(TEXT_VOCAB)}
UNKNOWN = TEXT_ID["[UNK]"]
TEXT_PAD = TEXT_OFFSET + len(TEXT_VOCAB)
SEMANTIC_INFER = TEXT_PAD + 1
SEMANTIC_IN = SEMANTIC_INFER + 1
SEMANTIC_OUT = EOS + 1
MAX_TEXT = 160
MAX_SEMANTIC = 400

# Codes.
CODES = 1024
N_CODES = 4  # codebooks
N_COARSE = 2
PHASES = 12  # a pulse train's phase at a frame's start, in twelfths of a period
PITCH_STEP = FRAME_RATE / PHASES  # Hz: with F0 a multiple of this, every frame starts on one of the phases
PITCH_RANGE = {"slt": (36, 52), "rms": (16, 34)}  # multiples of PITCH_STEP, both ends included

# Coarse vocabulary and windows.
COARSE_PAD = SEMANTIC_VOCAB + N_COARSE * CODES
COARSE_INFER = COARSE_PAD + 1
COARSE_VOCAB = COARSE_INFER + 1
PER_SEMANTIC = N_COARSE * FRAME_RATE // SEMANTIC_RATE  # coarse tokens of one semantic token
COARSE_PREFIX = 128
COARSE_HISTORY = 400
COARSE_WINDOW = 60
SEMANTIC_HISTORY = COARSE_HISTORY // PER_SEMANTIC

# Fine windows.
FINE_WINDOW = 256
FINE_HISTORY = 128

# A voice is a history prompt: its token twice and as much silence, whose pitch codes tell whose it is.
PRESET_TOKENS = 2
PRESET_FRAMES = PRESET_TOKENS * FRAME_RATE // SEMANTIC_RATE
DROPPED_HISTORY = 2  # coarse tokens that Bark drops from the end of a history


def pitch_code(voice: str, level: int, phase: int) -> int:
    """Code of codebook 1; level 0 is unvoiced."""
    if level == 0:
        return VOICES.index(voice)
    code = len(VOICES)
    for name in VOICES:
        low, high = PITCH_RANGE[name]
        if name == voice:
            return code + (level - low) * PHASES + phase
        code += (high - low + 1) * PHASES
    raise ValueError(voice)


def spell(text: str) -> list[int]:
    """The text's WordPiece ids: a letter each, spaces left out, as BertTokenizer with TEXT_VOCAB gives them."""
    ids, inside = [], False
    for c in text.lower():
        if c.isspace():
            inside = False
        elif c.isalnum():
            ids.append(TEXT_ID.get("##" + c if inside else c, UNKNOWN))
            inside = True
        else:
            ids.append(TEXT_ID.get(c, UNKNOWN))
            inside = False
    return ids

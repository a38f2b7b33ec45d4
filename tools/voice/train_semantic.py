"""Trains the first stage: text to semantic tokens.

    python train_semantic.py DATA OUT [--steps N] [--threads N]

Single words and crops of a few words first, then more and more sentences. The log's `onset` (the next phone's start and
name are both right) says more than the loss; the phone error rate of free-running generation says what matters.
"""

import numpy as np
import torch

import ragged
import training
from design import LETTERS, MAX_TEXT, TEXT_ID, TEXT_OFFSET, TEXT_PAD, VOICES
from recognise import distance
from semantic import CONTINUATION, END, ONSET, Semantic, joint

TOKENS = 3000  # positions of a process's batch; two run
POOL = 150_000  # tokens drawn at a time and sorted by length
MIX_FIRST, MIX_LAST, MIX_BY = (0.50, 0.33, 0.17), (0.10, 0.15, 0.75), 0.35  # words, crops, sentences; last from this share on
MEAN_LENGTH = (30, 52, 140)
FULL, FULL_LATE = 0.06, 0.25  # share of batches with all text pads; in the last quarter
NO_VOICE = 0.1  # share of rows without a voice; they get the first one's speech
PAD = TEXT_PAD - TEXT_OFFSET
# The corpus has plain marks only and no quotes. Rows get them as writers use them; none of them changes what is said.
WRAPPED, REPLACED = 0.12, 0.25  # share of rows in quotes or brackets; with other marks for the plain ones
PAIRS = ["“”", "“”", '""', '""', "‘’", "''", "()", "()", "[]", "**", "__", "<>", "{}", "##", "~~", "//", "``", "^^", "||", "\\\\"]
OTHERS = {"'": "’’’‘`´", ",": "—–;,", "-": "–—-", ".": "…..!", ";": "—,:", ":": "—;=", "!": ".!", "&": "+&"}


class Corpus:
    """The utterances of one set and voice."""

    def __init__(self, data, name: str, voice: str):
        stored = ragged.load(data / f"{name}.{voice}.npz", "text", "phone", "length", "letter", "word", "line")
        self.items = list(zip(*(stored[k] for k in ("text", "phone", "length", "letter", "word")), strict=True))
        self.lines = [int(n[0]) for n in stored["line"]]
        self.voice = VOICES.index(voice)

    def __len__(self):
        return len(self.items)

    def row(self, i: int):
        text, phone, length, letter, _ = self.items[i]
        return self.voice, text, expand(phone, length, letter)

    def crop(self, i: int, rng):
        """One to six words of an utterance, with silence around."""
        text, phone, length, letter, words = self.items[i]
        n = int(rng.integers(1, 7))
        first = int(rng.integers(0, max(1, len(words) - n + 1)))
        last = min(len(words), first + n) - 1
        begin = words[first][0]
        end = words[last + 1][0] if last + 1 < len(words) else len(text)
        a, b = words[first][1], words[last][2]
        phone, length = np.r_[0, phone[a:b], 0], np.r_[3, length[a:b], 3]
        letter = np.r_[0, letter[a:b] - begin, end - begin - 1]
        return self.voice, text[begin:end], expand(phone, length, letter)


def expand(phone, length, letter) -> np.ndarray:
    """Tokens [n, 3]: state, phone, letter modulo LETTERS."""
    state = np.full(int(length.sum()), CONTINUATION)
    state[np.r_[0, np.cumsum(length)[:-1]]] = ONSET
    return np.stack([state, np.repeat(phone, length), np.repeat(letter, length) % LETTERS], 1).astype(np.int64)


def marked(row, rng):
    """The row with other marks in its text, now and then."""
    voice, text, tokens = row
    if rng.random() < REPLACED:
        text = text.copy()
        for mark, others in OTHERS.items():
            other = TEXT_ID.get(others[rng.integers(len(others))])
            if other is not None:
                text[text == TEXT_ID[mark]] = other
    if rng.random() < WRAPPED and len(text) + 2 <= MAX_TEXT:
        opening, closing = PAIRS[rng.integers(len(PAIRS))]
        text = np.r_[TEXT_ID[opening], text, TEXT_ID[closing]]
        tokens = tokens.copy()
        spoken = np.flatnonzero(tokens[:, 1])
        tokens[:, 2] += 1
        tokens[spoken[-1] + 1 :, 2] += 1  # the silence after the last word reads the last mark
        tokens[:, 2] %= LETTERS
    return voice, text, tokens


def collate(rows, full: bool, rng=None):
    """text [B, n], voice [B], inputs [B, m, 3], targets [B, m, 3]."""
    n_text = MAX_TEXT if full else max(max(len(text) for _, text, _ in rows), 2)
    n = max(len(tokens) for _, _, tokens in rows) + 1
    text = np.full((len(rows), n_text), PAD, np.int64)
    inputs = np.zeros((len(rows), n, 3), np.int64)
    targets = np.full((len(rows), n, 3), -1, np.int64)
    inputs[:, 0, 0] = -1
    voices = np.zeros(len(rows), np.int64)
    for i, (voice, ids, tokens) in enumerate(rows):
        k = len(tokens)
        text[i, : len(ids)] = ids
        inputs[i, 1 : 1 + k] = tokens
        targets[i, :k] = tokens
        targets[i, k] = END, 0, 0
        voices[i] = -1 if voice == 0 and rng is not None and rng.random() < NO_VOICE else voice
    return tuple(map(torch.from_numpy, (text, voices, inputs, targets)))


def loss_of(outputs, targets):
    """Mean loss a token, and the share of onsets whose kind and phone are right."""
    valid = targets[..., 0] >= 0
    phones, letters, end, never = (z[valid] for z in outputs)
    y = targets[valid]
    scores = joint(phones, letters, end, never)
    i = torch.arange(len(y))
    state = y[:, 0].clamp(max=1)
    right = torch.where(y[:, 0] == END, end, phones[i, state, y[:, 1]] + letters[i, state, y[:, 2]])
    loss = (scores.logsumexp(-1) - right).mean()
    with torch.no_grad():
        onset = y[:, 0] == ONSET
        best = torch.stack([*(phones.amax(-1) + letters.amax(-1)).unbind(-1), end], -1).argmax(-1)
        hit = (best == ONSET) & (phones[:, 0].argmax(-1) == y[:, 1])
    return loss, hit[onset].float().mean()


def batches(sets, share: float, rng):
    """A pool of batches of rows of like length, in random order."""
    mix = np.array(MIX_FIRST) + (np.array(MIX_LAST) - MIX_FIRST) * min(1, share / MIX_BY)
    counts = (mix * POOL / MEAN_LENGTH).astype(int)
    rows = []
    for kind, count in zip(("words", "crops", "sentences"), counts, strict=True):
        corpora = sets["words" if kind == "words" else "sentences"]
        sizes = np.array([len(c) for c in corpora])
        for which in rng.choice(len(corpora), count, p=sizes / sizes.sum()):
            corpus = corpora[which]
            i = int(rng.integers(len(corpus)))
            rows.append(marked(corpus.crop(i, rng) if kind == "crops" else corpus.row(i), rng))
    rows.sort(key=lambda r: len(r[1]) + len(r[2]) + rng.random() * 4)
    out, batch = [], []
    for row in rows:
        if batch and (len(row[1]) + len(row[2]) + 2) * (len(batch) + 1) > TOKENS:
            out.append(batch)
            batch = []
        batch.append(row)
    out.append(batch)
    return [out[i] for i in rng.permutation(len(out))]


@torch.no_grad()
def generate(model, rows, temperature: float, longest: int) -> list[np.ndarray]:
    """Tokens [n, 3] of each row, free-running; temperature 0 takes the best."""
    text, voice, inputs, _ = collate(rows, True)
    x = torch.cat([model.embed_text(text, voice), model.embed_tokens(inputs[:, :1])], 1)
    positions, cache = torch.arange(MAX_TEXT + 1), {}
    done, out = torch.zeros(len(rows), dtype=torch.bool), []
    for step in range(longest):
        h = model.trunk(x, positions, cache)[:, -1]
        token = choose(model.logits(h), temperature)
        done |= token[:, 0] == END
        if done.all():
            break
        token[:, 0] = token[:, 0].clamp(max=1)
        out.append(torch.where(done[:, None], -1, token))
        x, positions = model.embed_tokens(token[:, None]), torch.tensor([MAX_TEXT + 1 + step])
    tokens = torch.stack(out, 1).numpy() if out else np.zeros((len(rows), 0, 3), int)
    return [t[t[:, 0] >= 0] for t in tokens]


def choose(logits, temperature: float):
    phones, letters, end, never = logits
    b = torch.arange(len(end))
    if temperature == 0:
        scores = torch.stack([*(phones.amax(-1) + letters.amax(-1)).unbind(-1), end, never], -1)
        kind = scores.argmax(-1).clamp(max=END)
        at = kind.clamp(max=1)
        return torch.stack([kind, phones[b, at].argmax(-1), letters[b, at].argmax(-1)], -1)
    scores = joint(phones / temperature, letters / temperature, end / temperature, never / temperature)
    kind = torch.multinomial(scores.softmax(-1), 1)[:, 0].clamp(max=END)
    at = kind.clamp(max=1)
    draw = [torch.multinomial((z[b, at] / temperature).softmax(-1), 1)[:, 0] for z in (phones, letters)]
    return torch.stack([kind, *draw], -1)


def phones_of(tokens: np.ndarray) -> list[int]:
    """The phones that a listener hears, silence left out."""
    out = []
    for k, (state, phone, _) in enumerate(tokens):
        if phone and (state == ONSET or k == 0 or phone != tokens[k - 1][1]):
            out.append(int(phone))
    return out


def phone_error_rate(model, rows, temperature: float) -> float:
    made = generate(model, rows, temperature, 2 * max(len(r[2]) for r in rows))
    wrong = total = 0
    for tokens, (_, _, right) in zip(made, rows, strict=True):
        wrong += distance(phones_of(tokens), phones_of(right))
        total += len(phones_of(right))
    return wrong / total


def main() -> None:
    args = training.arguments(__doc__, 6000)
    sets = {name: [Corpus(args.data, name, v) for v in VOICES] for name in ("sentences", "words")}
    held_out = [Corpus(args.data, "held_out", v) for v in VOICES]
    check = [held_out[i % 2].row(i) for i in range(40)]
    model = Semantic()
    run = training.Run(args, "semantic", model, 1.5e-3, (0.9, 0.95), decay=0.1)
    queue = []
    for step in run:
        if not queue:
            queue = batches(sets, run.share, run.rng)
        rows = queue.pop()
        full = run.rng.random() < (FULL if run.share < 0.75 else FULL_LATE)
        if full:
            rows = rows[: max(1, int(len(rows) * 0.6))]
        text, voice, inputs, targets = collate(rows, full, run.rng)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(text, voice, inputs)
        loss, onset = loss_of(outputs, targets)
        run.update(loss, loss=loss, onset=onset)
        if training.RANK == 0 and (run.step % 500 == 0 or run.step == run.steps):
            model.eval()
            run.log(per_greedy=phone_error_rate(model, check, 0.0), per_sampled=phone_error_rate(model, check, 0.7))
            model.train()


if __name__ == "__main__":
    main()

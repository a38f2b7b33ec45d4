"""Aligns the letters of a word with the phones the teacher says for it, by expectation maximisation over Viterbi paths.

The semantic tokens say which letter is being read; this is where that comes from.
"""

import collections
import math

UNSEEN = -7.0  # log weight of a letter-phone pair that never occurred
# Log costs of moving on by 0, 1, 2, 3, 4 letters from one phone to the next, and of starting or ending away from the ends.
STEPS = (-1.2, 0.0, -0.6, -1.2, -3.0)
STARTS = (0.0, -1.2, -2.5)
TAIL = -0.4  # for every letter after the last phone's

Word = tuple[str, tuple[str, ...]]  # letters, phones


class Aligner:
    """Learns log weights of letter-phone pairs from words, then aligns."""

    def __init__(self, words: list[Word], rounds: int = 4):
        words = list(dict.fromkeys(w for w in words if w[0] and w[1]))
        counts = collections.Counter()
        for letters, phones in words:  # first: every phone near its proportional place
            for j, phone in enumerate(phones):
                centre = j / max(1, len(phones) - 1) * (len(letters) - 1)
                for k, letter in enumerate(letters):
                    counts[letter, phone] += math.exp(-abs(k - centre))
        self.cache = {}
        for _ in range(rounds):
            self.weights = _log_weights(counts)
            counts = collections.Counter()
            for letters, phones in words:
                for phone, k in zip(phones, self._viterbi(letters, phones), strict=True):
                    counts[letters[k], phone] += 1

    def align(self, letters: str, phones: tuple[str, ...]) -> list[int]:
        """For each phone the index of its letter; never decreasing."""
        key = letters, phones
        if key not in self.cache:
            self.cache[key] = self._viterbi(letters, phones)
        return self.cache[key]

    def _viterbi(self, letters: str, phones: tuple[str, ...]) -> list[int]:
        n = len(letters)
        weight = self.weights.get
        rows, back = [], []
        for j, phone in enumerate(phones):
            emit = [weight((c, phone), UNSEEN) for c in letters]
            if j == 0:
                rows.append([emit[k] + STARTS[k] if k < len(STARTS) else -1e9 for k in range(n)])
                continue
            last, row, origin = rows[-1], [], []
            for k in range(n):
                best, step = max((last[k - s] + STEPS[s], s) for s in range(min(k + 1, len(STEPS))))
                row.append(best + emit[k])
                origin.append(k - step)
            rows.append(row)
            back.append(origin)
        k = max(range(n), key=lambda i: rows[-1][i] + TAIL * (n - 1 - i))
        path = [k]
        for origin in reversed(back):
            k = origin[k]
            path.append(k)
        return path[::-1]


def _log_weights(counts: collections.Counter) -> dict:
    letters, phones = collections.Counter(), collections.Counter()
    for (letter, phone), n in counts.items():
        letters[letter] += n
        phones[phone] += n
    total = sum(phones.values())
    return {
        (c, p): math.log((n + 0.1) / (letters[c] + 4)) - 0.5 * math.log(phones[p] / total)
        for (c, p), n in counts.items()
        if n > 0.01
    }

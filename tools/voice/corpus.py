"""Writes the texts that the teacher reads: sentences of Debian's fortunes, its word list, and numbers in templates.

    python corpus.py OUT

OUT/held_out.txt (never trained on), OUT/sentences.txt, OUT/words.txt; one text a line, the same for the same packages.
"""

import argparse
import random
import re
from pathlib import Path

FORTUNES = Path("/usr/share/games/fortunes")
WORDS = Path("/usr/share/dict/american-english")
HELD_OUT = 200
N_WORDS = 36000
N_NUMBERS = 3000
MAX_LETTERS = 150  # text tokens of a sentence: characters that are not spaces


def clean(block: str) -> str:
    """A fortune as running text: no attribution, no overstrikes, plain quotes gone."""
    block = re.sub(r"\s--\s.*", "", block, flags=re.S)
    block = re.sub(r".\x08", "", block)
    block = block.replace("--", ", ").replace('"', "").replace("`", "'")
    block = re.sub(r"\s+", " ", block)
    return re.sub(r" ,", ",", block)


def usable(s: str) -> bool:
    words = s.split()
    return (
        re.fullmatch(r"[A-Za-z0-9 ,.!?';:$%&-]+", s) is not None
        and s[-1] in ".!?"
        and 2 <= len(words) <= 26
        and len(s.replace(" ", "")) <= MAX_LETTERS
        and not re.search(r"[A-Z]{2,}|\d{5}|[A-Za-z]\d|\d[A-Za-z]|\.\.|[!?.,;:-] ?[.,;:-]", s)
        and not re.search(r"(^| )'|'( |$|[.,!?;:])", s)
        and max(map(len, words)) <= 18
    )


def sentences(rng: random.Random) -> list[str]:
    found = {}
    for path in sorted(FORTUNES.iterdir()):
        if path.suffix in (".dat", ".u8") or path.name.startswith(("ascii-art", "translate")) or not path.is_file():
            continue
        for block in path.read_text("utf-8", "ignore").split("\n%\n"):
            for s in re.split(r"(?<=[.!?])['\"]*\s+", clean(block)):
                s = re.sub(r"^[^A-Za-z0-9]+", "", s.strip())
                if s and usable(s):
                    found.setdefault(s.lower(), s[0].upper() + s[1:])
    out = list(found.values())
    rng.shuffle(out)
    return out


MONTHS = "January February March April May June July August September October November December".split()
THINGS = "people dollars books miles pages minutes apples houses letters years days points cars men women words".split()
NAMES = "Smith Jones Brown Miller Davis Wilson Taylor Clark Lewis Walker Hall Young King Wright Hill Green".split()
TITLES = ["Dr.", "Mr.", "Mrs.", "Ms.", "Prof."]
STREETS = ["Main St.", "Oak St.", "Park Ave.", "Hill Rd.", "Lake Dr."]


def number(rng: random.Random) -> str:
    """Small numbers are as frequent as large ones."""
    digits = rng.choice([1, 1, 2, 2, 2, 3, 3, 4])
    return str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))


def numbered(rng: random.Random) -> str:
    """A sentence with a number or an abbreviation in it."""
    n, m, thing, name = number(rng), number(rng), rng.choice(THINGS), rng.choice(NAMES)
    title, month, day, year = rng.choice(TITLES), rng.choice(MONTHS), rng.randint(1, 31), rng.randint(1700, 2030)
    hour, minute = rng.randint(1, 12), rng.randint(10, 59)
    return rng.choice([
        f"There are {n} {thing}.", f"We counted {n} {thing} and {m} {rng.choice(THINGS)}.", f"It costs {n} dollars.",
        f"It was built in {year}.", f"{title} {name} was born on {month} {day}, {year}.", f"It is {hour}:{minute} now.",
        f"The train leaves at {hour}:{minute}.", f"{title} {name} has {n} {thing}.", f"About {n} percent of {thing}.",
        f"Chapter {n}.", f"Page {n}, line {m}.", f"From {n} to {m}.", f"{n} plus {m}.", f"Call {title} {name} at {n}.",
        f"He lives at {n} {rng.choice(STREETS)}", f"On {month} {day} we met {title} {name}.", f"{n}.", f"{n}, {m}.",
        f"It took {n} days and {m} minutes.", f"In {year} there were only {n} {thing}.", f"Number {n} is next.",
        f"Only {n}% of the {thing} are left.", f"It costs ${n}.", f"The {thing} and {title} {name}, etc.",
    ])  # fmt: skip


def words(rng: random.Random) -> list[str]:
    out = [w for w in WORDS.read_text("utf-8").split() if re.fullmatch(r"[A-Za-z]?[a-z]{1,17}('s)?", w)]
    out = sorted({w.lower() for w in out if not w.endswith("'s")})
    rng.shuffle(out)
    return out[:N_WORDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    every = sentences(rng)
    plain = [s for s in every if re.fullmatch(r"[A-Za-z ,.!?';:-]+", s) and 4 <= len(s.split()) <= 16]
    held_out = plain[:HELD_OUT]
    kept = set(held_out)
    training = [s for s in every if s not in kept] + [numbered(rng) for _ in range(N_NUMBERS)]
    rng.shuffle(training)
    for name, lines in (("held_out", held_out), ("sentences", training), ("words", words(rng))):
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(lines)} texts, {sum(len(s.split()) for s in lines)} words")


if __name__ == "__main__":
    main()

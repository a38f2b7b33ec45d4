"""Checks that transformers' BarkModel and barkd make the same tokens and audio of an exported directory, greedily.

    python parity.py HF_DIRECTORY
"""

import argparse
import subprocess
import sys
from pathlib import Path

from design import VOICES

COMPARE = Path(__file__).resolve().parents[1] / "reference" / "compare.py"
TEXTS = ["Hello, my name is Bark.", "It is 8:59 now.", "Dr. Smith paid the other half of the bill, didn’t he?"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    failed = 0
    for text in TEXTS:
        for voice in (None, *VOICES):
            options = ["--voice", str(folder / f"{voice}.npz")] if voice else []
            print(f"{voice or 'no voice'}: {text}", flush=True)
            failed += subprocess.run([sys.executable, COMPARE, folder, "--text", text, *options]).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()

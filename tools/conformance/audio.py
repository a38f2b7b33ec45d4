"""What ffmpeg makes of audio that came from the server."""

import subprocess
import tempfile

# By how many samples of 24 kHz a decoded file may be longer than its audio. MP3, Opus and AAC come in frames; the header of a
# whole MP3 tells the true length, a stream of it begins with the encoder's delay and ends with a full frame; ADTS tells nothing.
MP3_STREAM = 1105 + 2 * 576
AAC = 3 * 1024


def decode(data: bytes, rate: int = 24000, *, raw: str | None = None) -> bytes:
    """Returns 16-bit mono samples at the rate. raw is the format of data that has no header."""
    given = ["-f", raw, "-ar", str(rate), "-ac", "1"] if raw else []
    with tempfile.NamedTemporaryFile() as file:  # of a pipe ffmpeg does not find out where an MP3 ends
        file.write(data)
        file.flush()
        done = subprocess.run(
            ["ffmpeg", "-hide_banner", "-loglevel", "error", *given, "-i", file.name, "-f", "s16le", "-ar", str(rate), "-ac", "1", "pipe:1"],
            capture_output=True, check=True,
        )
    assert not done.stderr, done.stderr
    return done.stdout


def probe(data: bytes) -> tuple[str, int]:
    """Returns the codec and the sample rate that the file says."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,sample_rate", "-of", "csv=p=0", "pipe:0"],
        input=data, capture_output=True, check=True,
    )
    codec, rate = done.stdout.decode().strip().split(",")[:2]
    return codec, int(rate)

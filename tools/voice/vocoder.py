"""Audio from the teacher's parameters with a pulse train that is locked to the codec's frames.

The teacher's own vocoder starts its pulses anywhere, so a code would have to carry a phase nobody can predict. Here F0 is
a multiple of PITCH_STEP within a frame, and a frame's phase follows from the one before.
"""

import numpy as np
from scipy import fft

from design import HOP, PHASES, PITCH_STEP, SAMPLE_RATE

ALPHA = 0.42  # frequency warping of the mel-cepstrum at 16 kHz
TEACHER_RATE = 16000
ORDER = 25
SIZE = 1024  # of the transforms: 43 ms
STEP = SAMPLE_RATE // 200  # 5 ms
BREATH_HZ, BREATH_WIDTH, BREATH = 5000.0, 600.0, 0.7  # voiced frames are partly noise above here

_hz = np.fft.rfftfreq(SIZE, 1 / SAMPLE_RATE)
_w = 2 * np.pi * np.minimum(_hz, TEACHER_RATE / 2) / TEACHER_RATE
_warped = _w + 2 * np.arctan(ALPHA * np.sin(_w) / (1 - ALPHA * np.cos(_w)))
_basis = np.exp(-1j * np.outer(np.arange(ORDER), _warped)).astype(np.complex64)
_band = (1 / (1 + np.exp((_hz - 7700) / 80))).astype(np.float32)
_breath = (BREATH / (1 + np.exp(-(_hz - BREATH_HZ) / BREATH_WIDTH))).astype(np.float32)
_window = np.hanning(2 * STEP + 1)[:-1].astype(np.float32)


def phases(levels: np.ndarray) -> np.ndarray:
    """Phase at each frame's start, in 1/PHASES of a period; a voiced stretch starts with a pulse."""
    out = np.zeros(len(levels), np.int64)
    phase = 0
    for t, level in enumerate(levels):
        if level == 0:
            phase = 0
        else:
            out[t] = phase
            phase = (phase + int(level)) % PHASES
    return out


def _respond(cepstrum: np.ndarray) -> np.ndarray:
    """Minimum-phase filter [n, bins] of mel-cepstra [n, ORDER], at SAMPLE_RATE."""
    return np.exp((cepstrum.astype(np.complex64) @ _basis)) * _band


def _pulses(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times in samples, and periods in samples, of every pulse."""
    times, periods = [], []
    for t, (level, phase) in enumerate(zip(levels, phases(levels), strict=True)):
        if level:
            period = SAMPLE_RATE / (level * PITCH_STEP)
            first = -phase / PHASES % 1.0 * period
            at = np.arange(first, HOP - 1e-6, period)
            times.append(t * HOP + at)
            periods.append(np.full(len(at), period))
    return (np.concatenate(times), np.concatenate(periods)) if times else (np.zeros(0), np.zeros(0))


def synthesize(cepstrum: np.ndarray, levels: np.ndarray, seed: int) -> np.ndarray:
    """Samples [frames · HOP] from mel-cepstra [frames · 4, ORDER] every 5 ms and pitch levels [frames]."""
    length = len(levels) * HOP
    out = np.zeros(length + SIZE + STEP, np.float32)
    filters = _respond(cepstrum)
    times, periods = _pulses(levels)
    if len(times):
        whole = np.floor(times).astype(np.int64)
        shift = np.exp(np.outer(times - whole, -2j * np.pi * _hz / SAMPLE_RATE).astype(np.complex64))
        gain = SAMPLE_RATE / TEACHER_RATE * np.sqrt(periods * TEACHER_RATE / SAMPLE_RATE)
        spectra = filters[np.minimum(whole // STEP, len(filters) - 1)] * shift * np.sqrt(1 - _breath) * gain[:, None].astype(np.float32)
        for at, response in zip(whole, fft.irfft(spectra.astype(np.complex64), SIZE), strict=True):
            out[at : at + SIZE] += response
    rng = np.random.default_rng(seed)
    n = len(filters)
    noise = rng.standard_normal((n + 1) * STEP).astype(np.float32)
    blocks = np.lib.stride_tricks.sliding_window_view(noise, 2 * STEP)[::STEP] * _window
    voiced = np.repeat(levels > 0, len(filters) // len(levels))[:, None]
    weight = np.where(voiced, np.sqrt(_breath), 1.0) * np.float32(SAMPLE_RATE / TEACHER_RATE) ** 0.5
    spectra = fft.rfft(blocks, SIZE) * filters * weight
    for t, response in enumerate(fft.irfft(spectra.astype(np.complex64), SIZE)):
        out[t * STEP : t * STEP + SIZE] += response
    # A block's window peaks STEP after its start; its row's middle is STEP / 2 after: close enough at 2.5 ms.
    return out[:length] / 32768

"""Makes the numbers and the sound in this folder, once: the tests only read them.

With torchaudio 2.11.0 (Python 3.11, torch 2.15.0, soundfile 0.14.0):

    python make.py

The signal is that of `signal` in ../common/mod.rs, in 64 bits: in 32, torchaudio itself is off by up to 2e-2 on loud frames.
"""

import math
import pathlib

import numpy
import soundfile
import torch

# This torchaudio refuses a torch that was built for another CUDA, which these functions do not use.
torch.version.cuda = "13.0"
import torchaudio.functional as functional
from torchaudio.compliance import kaldi

HERE = pathlib.Path(__file__).parent
GAMMA, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def scatter(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


KEY = scatter(1 + GAMMA & MASK)


def uniform(counter):
    return (scatter(KEY + (counter + 1) * GAMMA & MASK) >> 11) / (1 << 53)


def signal(rate, count):
    """A rising tone that swells twice, and noise."""

    def sample(n):
        t = n / rate
        swell = 0.05 + 0.9 * math.sin(10.0 * t) ** 2
        return swell * math.sin(2.0 * math.pi * (100.0 + 10000.0 * t) * t) + 0.02 * (uniform(n) - 0.5)

    return [sample(n) for n in range(count)]


def wave(rate, count):
    return torch.tensor([signal(rate, count)], dtype=torch.float64)


def scaled(rate, count):
    """At the scale of 16-bit files, which is Kaldi's."""
    return 32768.0 * wave(rate, count)


def write(name, values, digits=6):
    rows = values.tolist() if values.dim() == 2 else [values.tolist()]
    lines = (" ".join(f"{number:.{digits}f}" for number in row) for row in rows)
    (HERE / f"{name}.txt").write_text("".join(line + "\n" for line in lines))


def deltas(values):
    first = functional.compute_deltas(values.T).T
    second = functional.compute_deltas(first.T).T
    return torch.cat([values, first, second], dim=1)


write("log_mel", kaldi.fbank(scaled(16000, 2400), sample_frequency=16000.0))
write(
    "log_mel_80",
    kaldi.fbank(scaled(8000, 680), sample_frequency=8000.0, num_mel_bins=80),
)
write(
    "log_mel_settings",
    kaldi.fbank(
        scaled(8000, 1200),
        sample_frequency=8000.0,
        frame_length=32.0,
        frame_shift=12.5,
        window_type="hamming",
        preemphasis_coefficient=0.9,
        num_mel_bins=30,
        low_freq=100.0,
        high_freq=3600.0,
        use_energy=True,
    ),
)
write("mfcc", kaldi.mfcc(scaled(16000, 2400), sample_frequency=16000.0))
write(
    "mfcc_settings",
    kaldi.mfcc(
        scaled(16000, 2400),
        sample_frequency=16000.0,
        window_type="hanning",
        preemphasis_coefficient=0.0,
        num_mel_bins=40,
        num_ceps=20,
        low_freq=130.0,
        high_freq=6800.0,
        cepstral_lifter=0.0,
        use_energy=True,
    ),
)
write(
    "mfcc_deltas",
    deltas(kaldi.mfcc(scaled(16000, 2400), sample_frequency=16000.0, window_type="rectangular")),
)
for old, new, count in [(8000, 16000, 200), (16000, 8000, 600), (44100, 16000, 700), (16000, 11025, 400)]:
    write(f"resample_{old}_{new}", functional.resample(wave(old, count), old, new)[0], digits=10)

mono = numpy.array(signal(8000, 10000))
soundfile.write(HERE / "mono.flac", 0.5 * mono, 8000, subtype="PCM_16")
stereo = numpy.stack([0.9 * mono[:800], -0.3 * mono[:800]], axis=1)
soundfile.write(HERE / "stereo.flac", stereo, 8000, subtype="PCM_24")

"""What the measures take of :mod:`transcription`."""

from transcription import HOP_LENGTH, SAMPLE_RATE, Transcriber, decode

__all__ = ["HOP_LENGTH", "SAMPLE_RATE", "Transcriber", "decode"]

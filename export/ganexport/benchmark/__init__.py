"""Benchmarks: contenders on the same inputs, their outputs checked first, timed in interleaved rounds."""

"""The double of cuda-python as an importable module, for processes that a test starts."""

from cuda_double import cuda_runtime
from imaginary_machine import described_machine

globals().update({k: v for k, v in vars(cuda_runtime(described_machine())).items() if k[0] != "_"})

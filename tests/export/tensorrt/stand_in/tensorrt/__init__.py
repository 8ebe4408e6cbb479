"""The double of TensorRT as an importable package, for processes that a test starts: see `Machine.describe`."""

from imaginary_machine import described_machine
from tensorrt_double import tensorrt

globals().update({k: v for k, v in vars(tensorrt(described_machine())).items() if k == "__version__" or k[0] != "_"})

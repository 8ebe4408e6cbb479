"""ganexport: from a checkpoint to verified ONNX graphs and TensorRT engines."""

from ganruntime import __version__

__all__ = ["__version__"]

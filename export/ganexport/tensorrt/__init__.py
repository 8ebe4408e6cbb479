"""TensorRT engines: built from a bundle's ONNX on the machine that will serve them, read back, proven, recorded.

Imports neither torch nor onnx; TensorRT and cuda-python are imported when something is called.
"""

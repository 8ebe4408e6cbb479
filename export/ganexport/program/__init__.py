"""From a network to torch's program, and what is rewritten in it before it becomes ONNX."""

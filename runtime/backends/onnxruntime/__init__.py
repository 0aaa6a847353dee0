"""ONNX Runtime on a CPU, with kernels of our own, and on an NVIDIA GPU."""

"""ONNX Runtime's CUDA session, computed by torch: for tests alone."""

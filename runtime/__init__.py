"""Bundles, backends, sampler and pipelines. Never imports torch, onnx or a builder."""

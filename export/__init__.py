"""Checkpoints to ONNX bundles: the only home of torch, diffusers and transformers."""

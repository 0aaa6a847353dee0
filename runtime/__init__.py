"""Bundles, backends, sampler and pipelines. Never imports torch, onnx or a builder.

What is loaded, chosen and done is logged under `amodal`, at INFO and DEBUG; nothing is shown unless the program asks.
"""

import logging

logging.getLogger("amodal").addHandler(logging.NullHandler())

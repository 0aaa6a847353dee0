"""Writing ONNX graphs: operators, layers, weights."""

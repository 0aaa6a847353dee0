"""ONNX Runtime's real CUDA provider over a CUDA that computes nothing, on machines without a GPU.

The provider of the `onnxruntime-gpu` wheel then assigns nodes, plans memory, records CUDA graphs and replays them as on
a GPU; only its kernels are idle. What runs where, launches, copies, waits, allocations and calls that are illegal while
recording are counted. Not seen are times, values, and the workspaces of cuDNN and cuBLAS.

`wheel.py` unpacks the wheel, `build.py` compiles the C files for the libraries that its provider imports, and
`measure.py` runs graphs with amodal's own backend in a process of its own: this one has ONNX Runtime for the CPU.
"""

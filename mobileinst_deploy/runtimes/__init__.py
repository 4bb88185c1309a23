"""Whatever computes the graphs, behind one protocol: ONNX Runtime, ncnn, PyTorch, a phone, qemu."""

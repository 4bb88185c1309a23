"""ncnn, the second runtime: the exported pair converted by pnnx, and run on this machine."""

"""A phone without a phone: the real adbd, and aarch64 programs under qemu, without privilege."""

"""A phone without a phone: the real adbd, aarch64 programs under qemu, an unprivileged namespace."""

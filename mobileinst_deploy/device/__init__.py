"""Devices: a phone over adb, an emulated one, and qemu, all running the same bundle."""

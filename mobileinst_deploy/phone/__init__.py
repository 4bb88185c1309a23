"""A phone over adb: its shell, what is pushed to it, the runner's wire format, and its state."""

"""Pictures and clips in, overlays and track files out."""

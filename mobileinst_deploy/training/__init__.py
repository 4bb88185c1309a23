"""Training: losses, matching, query passing, data and a loop that survives interruption."""

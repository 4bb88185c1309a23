"""What is measured and how it is judged: precision, profiles."""

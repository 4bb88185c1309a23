"""Data to train and evaluate on: COCO, YouTube-VIS, and shapes that are drawn on demand."""

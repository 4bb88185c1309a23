"""Rewrite ONNX graphs so that stock ONNX Runtime executes fewer ARM instructions for them."""

from mobileinst_deploy.optimize.pipeline import LARGEST_TILE, PassRecord, optimize_graph, passes

__all__ = ["LARGEST_TILE", "PassRecord", "optimize_graph", "passes"]

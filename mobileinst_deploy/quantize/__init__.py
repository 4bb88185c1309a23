"""Pairs with 8-bit arithmetic, or with float16 weights; each with its price."""

from mobileinst_deploy.quantize.half import halve_pair, halve_weights
from mobileinst_deploy.quantize.int8 import (
    INT8,
    FloatRewriter,
    QuantizeReport,
    quantize_pair,
    read_pictures,
)
from mobileinst_deploy.quantize.price import Price, measure_price

__all__ = [
    "INT8",
    "FloatRewriter",
    "Price",
    "QuantizeReport",
    "halve_pair",
    "halve_weights",
    "measure_price",
    "quantize_pair",
    "read_pictures",
]

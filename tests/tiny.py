"""The smallest network that has every part: TopFormer-Tiny's, 5 queries of width 16 at 64x128."""

from mobileinst_deploy.core.config import ModelConfig, Tolerance

TINY = ModelConfig(
    backbone="topformer-tiny",
    classes=("cat", "dog", "fox"),
    input_size=(64, 128),
    num_queries=5,
    width=16,
    num_heads=4,
)
#: The zoo's: random weights amplify rounding a little more than trained ones.
TOLERANCE = Tolerance(atol=5e-3)

TINY_TOML = """
id = "tiny"
[config]
backbone = "topformer-tiny"
classes = ["cat", "dog", "fox"]
input_size = [64, 128]
num_queries = 5
width = 16
num_heads = 4
"""
TOLERANCE_TOML = "[tolerance]\natol = 5e-3\n"

"""The smallest network that has every part: TopFormer-Tiny's, 5 queries of width 16 at 64x128."""

from mobileinst_deploy.specs import ModelConfig

TINY = ModelConfig(
    backbone="topformer-tiny",
    classes=("cat", "dog", "fox"),
    input_size=(64, 128),
    num_queries=5,
    width=16,
    num_heads=4,
)

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

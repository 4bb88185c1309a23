"""The smallest network that has every part: TopFormer-Tiny's, 5 queries of width 16 at 64x128."""

from mobileinst_deploy.core.config import ModelConfig, Tolerance
from mobileinst_deploy.data.shapes import CLASSES

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
#: The same with the classes of drawn shapes, to train and to evaluate.
SHAPES_TOML = TINY_TOML.replace('["cat", "dog", "fox"]', str(list(CLASSES)))
TOLERANCE_TOML = "[tolerance]\natol = 5e-3\n"


def recipe(iterations: int) -> str:
    """A train.toml for drawn shapes, as short as may be."""
    return f"""
model = "model.toml"
threads = 1
[data]
validation_clips = 0
frames = 4
[[stages]]
kind = "image"
iterations = {iterations}
batch = 2
lr = 1e-3
"""

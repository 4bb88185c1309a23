"""Predicted instructions are near those counted, so that the choices made by them are right."""

import pytest

from mobileinst_deploy.optimize import cost

# Counted operator by operator on ONNX Runtime 1.32 for a Cortex-A76, in millions.
GEMM = [
    ((36, 36, 20480), False, 8.986),
    ((8, 8, 81920), False, 2.413),
    ((6, 8, 81920), False, 1.952),
    ((6, 6, 81920), False, 1.664),
    ((4, 6, 81920), False, 1.142),
    ((10, 10, 81920), False, 3.711),
    ((140, 256, 256), True, 2.856),
    ((100, 256, 3840), False, 31.01),
]
CONVOLUTIONS = [
    # groups, inputs and outputs of a group, kernel, output size, stride, counted
    (1, 16, 64, 1, (192, 320), 1, 28.67),
    (1, 64, 256, 1, (48, 80), 1, 21.59),
    (1, 256, 256, 3, (48, 80), 1, 732.9),
    (1, 128, 128, 3, (24, 40), 1, 48.04),
    (1, 32, 64, 3, (48, 80), 1, 25.63),
    (96, 1, 1, 3, (96, 160), 1, 17.30),
    (768, 1, 1, 3, (12, 20), 1, 4.17),
    (64, 1, 1, 3, (96, 160), 2, 67.60),
    (96, 1, 1, 5, (48, 80), 2, 71.30),
    (192, 1, 1, 5, (48, 80), 1, 49.51),
    (768, 1, 1, 5, (12, 20), 1, 20.85),
    (64, 4, 1, 2, (96, 160), 1, 36.54),
    (64, 4, 1, 3, (96, 160), 1, 87.04),
    (192, 4, 4, 3, (24, 40), 1, 29.97),
    (960, 4, 4, 3, (6, 10), 1, 18.74),
]


@pytest.mark.parametrize(("shape", "packed", "counted"), GEMM)
def test_matrix_products(shape, packed, counted):
    assert cost.gemm(*shape, packed=packed) / 1e6 == pytest.approx(counted, rel=0.08)


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "kernel", "size", "stride", "counted"), CONVOLUTIONS
)
def test_convolutions(groups, inputs, outputs, kernel, size, stride, counted):
    pads = (kernel // 2,) * 4
    predicted = cost.convolution(groups, inputs, outputs, (kernel, kernel), size, stride, pads)
    assert predicted / 1e6 == pytest.approx(counted, rel=0.11)


@pytest.mark.parametrize(
    ("chunks", "length", "counted"), [(1500, 256, 0.348), (1500, 64, 0.169), (60, 10240, 0.418)]
)
def test_gathers(chunks, length, counted):
    assert cost.gather(chunks, length) / 1e6 == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("size", "counted"), [((48, 80), 203.98), ((24, 40), 51.05), ((12, 20), 12.82)]
)
def test_convolutions_in_8_bits(size, counted):
    positions = size[0] * size[1]
    elements = 256.0 * positions
    predicted = cost.convolution_int8(positions * 9 * 256 * 256, elements, elements)
    assert predicted / 1e6 == pytest.approx(counted, rel=0.05)


def test_only_one_depthwise_shape_has_a_kernel_of_its_own():
    assert cost.is_fast_depthwise(1, 1, (3, 3), 1, (1, 1, 1, 1))
    assert not cost.is_fast_depthwise(1, 1, (3, 3), 2, (1, 1, 1, 1))
    assert not cost.is_fast_depthwise(1, 1, (5, 5), 1, (2, 2, 2, 2))
    assert not cost.is_fast_depthwise(1, 1, (3, 3), 1, (2, 2, 2, 2))
    assert not cost.is_fast_depthwise(4, 4, (3, 3), 1, (1, 1, 1, 1))

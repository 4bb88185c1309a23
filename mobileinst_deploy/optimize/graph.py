"""An ONNX graph that can be edited: who makes and reads a tensor, its shape, its constant value."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper as arrays,
)

from mobileinst_deploy.core.errors import BundleError

Shape = tuple[int, ...]
_STANDARD = frozenset({"", "ai.onnx"})


class Graph:
    """A copy of a model that passes rewrite node by node.

    Nodes keep no order while they are edited; :meth:`model` sorts them. Names of the graph's inputs
    and outputs, and of tensors that a subgraph reads, survive every edit.

    Args:
        model: Opset 13 or later of the standard operators; left as it is.

    Raises:
        BundleError: Its shapes contradict each other, or its operators are not the standard ones.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = ModelProto()
        self._model.CopyFrom(model)
        self.opset = next((o.version for o in model.opset_import if o.domain in _STANDARD), 0)
        if self.opset < 13:
            raise BundleError(
                f"the graph uses operator set {self.opset}, and optimising needs 13 or later",
                "Export it with a newer operator set",
            )
        graph = self._model.graph
        self.inputs = [v.name for v in graph.input]
        self.outputs = [v.name for v in graph.output]
        self._constants: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._values: dict[str, np.ndarray] = {}
        self.nodes: list[NodeProto] = []
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in _STANDARD:
                self._constants[node.output[0]] = _constant_node(node)
            else:
                self.nodes.append(node)
        self.pinned = set(self.outputs) | set(_captured(self.nodes))
        self._taken = set(self._constants) | set(self.inputs)
        self._taken.update(name for node in self.nodes for name in node.output)
        self._taken.update(node.name for node in self.nodes)
        self._shared: dict[str, str] = {}
        self._shapes = self._infer_shapes()
        self._index()

    # What is there ------------------------------------------------------------------------------

    def producer(self, tensor: str) -> NodeProto | None:
        """The node that makes a tensor; None for inputs and constants."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> list[NodeProto]:
        """The nodes that read a tensor, each once."""
        return list(self._consumers.get(tensor, ()))

    def only_consumer(self, tensor: str) -> NodeProto | None:
        """The one node that reads a tensor, unless the tensor is also an output."""
        readers = self._consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.pinned else None

    def shape(self, tensor: str) -> Shape | None:
        """The shape, if every length is known."""
        return self._shapes.get(tensor)

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor's value is stored in the graph."""
        return tensor in self._constants

    def value(self, tensor: str) -> np.ndarray | None:
        """The stored value of a constant; None for other tensors. Not to be written to."""
        if tensor not in self._constants:
            return None
        if tensor not in self._values:
            self._values[tensor] = arrays.to_array(self._constants[tensor])
        return self._values[tensor]

    # Edits --------------------------------------------------------------------------------------

    def constant(self, value: np.ndarray, hint: str) -> str:
        """Store a value and return its name; equal values share one."""
        value = np.ascontiguousarray(value)
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        key = f"{value.dtype}{value.shape}{digest}"
        if key not in self._shared:
            name = self._fresh(hint)
            self._constants[name] = arrays.from_array(value, name)
            self._shapes[name] = tuple(value.shape)
            self._shared[key] = name
        return self._shared[key]

    def add(self, op: str, inputs: Sequence[str], hint: str, **attributes: Any) -> str:
        """Append a node with one output and return that tensor's name.

        Args:
            op: A standard operator.
            inputs: Its inputs; an empty string omits one.
            hint: What to call the node and its output, made unique.
            attributes: Of the operator.
        """
        output = self._fresh(hint)
        node = helper.make_node(op, list(inputs), [output], name=output, **attributes)
        self._insert(node)
        return output

    def reshape(self, tensor: str, shape: Shape) -> str:
        """Add a view of the same elements in another shape."""
        target = self.constant(np.array(shape, np.int64), "shape")
        name = self.add("Reshape", [tensor, target], f"{tensor}/view")
        self._shapes[name] = shape
        return name

    def split(self, tensor: str, parts: int, length: int, *, axis: int, hint: str) -> list[str]:
        """Cut a tensor along an axis into parts of equal length."""
        sizes = self.constant(np.full(parts, length, np.int64), "lengths")
        outputs = [self._fresh(hint) for _ in range(parts)]
        node = helper.make_node("Split", [tensor, sizes], outputs, name=outputs[0], axis=axis)
        self._insert(node)
        return outputs

    def remove(self, nodes: Iterable[NodeProto]) -> None:
        """Drop nodes; whoever reads their outputs must have been redirected."""
        gone = {id(node) for node in nodes}
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self._index()

    def redirect(self, old: str, new: str) -> None:
        """Let every reader of ``old`` read ``new``; a pinned name moves to the new tensor.

        ``old`` must have been an output of a node, which the caller removes or has removed.
        """
        shape = self._shapes.get(old)
        if shape is not None:
            self._shapes.setdefault(new, shape)
        if old not in self.pinned:
            self._rename_reads(old, new)
            return
        maker = self._producers.get(new)
        if maker is None or new in self.pinned:
            # A constant, an input or another output cannot take the name over.
            self._drop_output(old)
            copy = helper.make_node("Identity", [new], [old], name=self._fresh(f"{old}_copy"))
            self._rename_reads(old, new)
            self._insert(copy)
            return
        self._drop_output(old)
        for i, name in enumerate(maker.output):
            if name == new:
                maker.output[i] = old
        self._rename_reads(new, old)
        self._index()

    def set_shape(self, tensor: str, shape: Sequence[int]) -> None:
        """State the shape of a tensor that an edit made."""
        self._shapes[tensor] = tuple(shape)

    def refresh_shapes(self) -> None:
        """Infer all shapes again, after edits."""
        self._model = self.model()
        self._shapes = self._infer_shapes()

    def prune(self) -> int:
        """Drop nodes and constants that nothing needs; return the number of nodes dropped."""
        needed = set(self.pinned)
        kept: list[NodeProto] = []
        for node in reversed(self.sorted_nodes()):
            if any(name in needed for name in node.output):
                kept.append(node)
                needed.update(node.input)
                needed.update(_captured([node]))
        dropped = len(self.nodes) - len(kept)
        self.nodes = kept[::-1]
        self._constants = {n: t for n, t in self._constants.items() if n in needed}
        self._shared = {k: n for k, n in self._shared.items() if n in self._constants}
        self._index()
        return dropped

    def model(self) -> ModelProto:
        """The graph as a model: sorted, pruned, without stale shape annotations."""
        self.prune()
        model = ModelProto()
        for entry in self._model.opset_import:
            model.opset_import.add().CopyFrom(entry)
        model.ir_version = self._model.ir_version
        model.producer_name = self._model.producer_name
        model.producer_version = self._model.producer_version
        for prop in self._model.metadata_props:
            model.metadata_props.add().CopyFrom(prop)
        source, graph = self._model.graph, model.graph
        graph.name = source.name
        graph.input.extend(v for v in source.input if v.name not in self._constants)
        graph.output.extend(source.output)
        graph.node.extend(self.sorted_nodes())
        graph.initializer.extend(self._constants.values())
        return model

    def op_counts(self) -> Counter[str]:
        """Number of nodes per operator."""
        return Counter(node.op_type for node in self.nodes)

    # Inside -------------------------------------------------------------------------------------

    def _insert(self, node: NodeProto) -> None:
        self.nodes.append(node)
        for name in node.output:
            self._producers[name] = node
        for name in dict.fromkeys(node.input):
            self._consumers.setdefault(name, []).append(node)

    def _index(self) -> None:
        self._producers: dict[str, NodeProto] = {}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.output:
                self._producers[name] = node
            for name in dict.fromkeys(node.input):
                if name:
                    self._consumers.setdefault(name, []).append(node)

    def _rename_reads(self, old: str, new: str) -> None:
        for node in self._consumers.pop(old, []):
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
            readers = self._consumers.setdefault(new, [])
            if not any(reader is node for reader in readers):
                readers.append(node)

    def _drop_output(self, name: str) -> None:
        """Free a tensor's name by renaming what its maker calls it."""
        maker = self._producers.pop(name, None)
        if maker is not None:
            for i, output in enumerate(maker.output):
                if output == name:
                    maker.output[i] = self._fresh(f"{name}_unused")
                    self._producers[maker.output[i]] = maker

    def _fresh(self, hint: str) -> str:
        name, number = hint, 0
        while name in self._taken:
            number += 1
            name = f"{hint}_{number}"
        self._taken.add(name)
        return name

    def sorted_nodes(self) -> list[NodeProto]:
        """Nodes in an order in which each comes after those it reads, else as they were."""
        waiting = {id(n): sum(name in self._producers for name in _reads(n)) for n in self.nodes}
        readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in _reads(node):
                readers.setdefault(name, []).append(node)
        order: list[NodeProto] = []
        ready = [node for node in reversed(self.nodes) if waiting[id(node)] == 0]
        while ready:
            node = ready.pop()
            order.append(node)
            for name in node.output:
                for reader in reversed(readers.get(name, [])):
                    waiting[id(reader)] -= 1
                    if waiting[id(reader)] == 0:
                        ready.append(reader)
        if len(order) != len(self.nodes):
            raise BundleError("the graph has a cycle", "Give a valid ONNX graph")
        return order

    def _infer_shapes(self) -> dict[str, Shape]:
        try:
            inferred = onnx.shape_inference.infer_shapes(
                self._model, strict_mode=True, data_prop=True
            )
        except (onnx.shape_inference.InferenceError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BundleError(
                f"the graph's shapes cannot be inferred: {reason}", "Give a valid ONNX graph"
            ) from error
        shapes: dict[str, Shape] = {n: tuple(t.dims) for n, t in self._constants.items()}
        graph = inferred.graph
        for info in (*graph.input, *graph.output, *graph.value_info):
            tensor = info.type.tensor_type
            if not tensor.HasField("shape"):
                continue
            lengths = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
            if all(length >= 0 for length in lengths):
                shapes[info.name] = tuple(lengths)
        return shapes


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, text decoded, or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def attributes(node: NodeProto) -> dict[str, Any]:
    """All attributes of a node, as :meth:`Graph.add` takes them."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def is_op(node: NodeProto | None, *ops: str) -> bool:
    """Whether a node is one of these standard operators."""
    return node is not None and node.domain in _STANDARD and node.op_type in ops


def _reads(node: NodeProto) -> list[str]:
    return [*dict.fromkeys(name for name in (*node.input, *_captured([node])) if name)]


def _captured(nodes: Iterable[NodeProto]) -> list[str]:
    """Names that the subgraphs of control-flow nodes may read from outside."""
    names: list[str] = []
    for node in nodes:
        for entry in node.attribute:
            bodies: list[GraphProto] = [*entry.graphs]
            if entry.type == AttributeProto.GRAPH:
                bodies.append(entry.g)
            for body in bodies:
                names.extend(name for inner in body.node for name in inner.input)
                names.extend(output.name for output in body.output)
                names.extend(_captured(body.node))
    return names


def _constant_node(node: NodeProto) -> TensorProto:
    """The tensor that a Constant node stands for."""
    entry = node.attribute[0]
    if entry.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(entry.t)
        tensor.name = node.output[0]
        return tensor
    value = helper.get_attribute_value(entry)
    kinds = {"value_float": np.float32, "value_floats": np.float32}
    ints = {"value_int": np.int64, "value_ints": np.int64}
    if entry.name not in kinds | ints:
        raise BundleError(
            f"the graph has a Constant of kind {entry.name}, which is not supported",
            "Simplify the graph first",
        )
    return arrays.from_array(np.array(value, (kinds | ints)[entry.name]), node.output[0])

"""A Hugging Face folder → an ONNX graph with a cache of keys and values, for ONNX Runtime.

In    input_ids [B T], keep [1], past.i.key and past.i.value [B H S D]
Out   logits [B K V] of the last K = keep positions (0: of all), present.i.key and present.i.value [B H S+T D]

Rows have one length, so there is no mask but the causal one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from refgen.bench.weights import read_folder
from refgen.config import GPT2Config
from refgen.errors import BenchError

OPSET = 20  # the first with Gelu


class Graph:
    """Nodes and constants, one call each; every call returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def __call__(self, kind: str, *inputs: str, to: str = "", results: int = 1, **attributes: Any) -> Any:
        """One node."""
        number = len(self.nodes)
        names = [to or f"{kind}.{number}.{i}" for i in range(results)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names if results > 1 else names[0]

    def constant(self, name: str, value: ndarray) -> str:
        """A tensor of the file."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def whole(self, *values: int) -> str:
        """A list of whole numbers."""
        return self.constant(f"whole{list(values)}", np.array(values, dtype=np.int64))

    def scalar(self, value: float) -> str:
        """A float32."""
        return self.constant(f"float {value!r}", np.array(value, dtype=np.float32))


def build(config: GPT2Config, tensors: dict[str, ndarray]) -> Any:
    """The model."""
    g = Graph()
    for name, tensor in tensors.items():
        g.constant(name, tensor)
    past = g("Shape", "past.0.key", start=2, end=3)
    new = g("Shape", "input_ids", start=1, end=2)
    total = g("Add", past, new)
    zero, one = (g("Squeeze", g.whole(each)) for each in (0, 1))
    columns = g("Range", zero, g("Squeeze", total), one)
    rows = g("Range", g("Squeeze", past), g("Squeeze", total), one)
    hidden = g("Less", g("Unsqueeze", rows, g.whole(1)), columns)  # a key behind the query
    mask = g("Where", hidden, g.scalar(float(np.finfo(np.float32).min)), g.scalar(0.0))  # [T S]

    x = g("Add", g("Gather", "wte.weight", "input_ids"), g("Gather", "wpe.weight", rows))
    for i in range(config.n_layer):
        x = block(g, config, i, x, mask)
    kept = g("Slice", x, g("Neg", "keep"), g.whole(2**62), g.whole(1))
    kept = normed(g, config, kept, "ln_f")
    head = "wte.weight" if config.tie_word_embeddings else "lm_head.weight"
    flat = g("Gemm", g("Reshape", kept, g.whole(-1, config.n_embd)), head, transB=1)
    lead = g("Concat", g("Shape", kept, start=0, end=2), g.whole(config.vocab_size), axis=0)
    g("Reshape", flat, lead, to="logits")
    return model(config, g)


def block(g: Graph, config: GPT2Config, i: int, x: str, mask: str) -> str:
    """One layer: attention adds to the stream, then the MLP does."""
    C, H = config.n_embd, config.n_head
    qkv = linear(g, normed(g, config, x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn")
    parts = g("Split", qkv, axis=-1, num_outputs=3, results=3)
    q, k, v = (g("Transpose", g("Reshape", part, g.whole(0, 0, H, C // H)), perm=[0, 2, 1, 3]) for part in parts)
    k = g("Concat", f"past.{i}.key", k, axis=2, to=f"present.{i}.key")
    v = g("Concat", f"past.{i}.value", v, axis=2, to=f"present.{i}.value")
    scale = (C // H) ** -0.5 if config.scale_attn_weights else 1.0
    scale /= i + 1 if config.scale_attn_by_inverse_layer_idx else 1
    scores = g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), g.scalar(scale))
    pattern = g("Softmax", g("Add", scores, mask), axis=-1)
    z = g("Reshape", g("Transpose", g("MatMul", pattern, v), perm=[0, 2, 1, 3]), g.whole(0, 0, C))
    x = g("Add", x, linear(g, z, f"h.{i}.attn.c_proj"))
    up = linear(g, normed(g, config, x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
    return str(g("Add", x, linear(g, activated(g, config, up), f"h.{i}.mlp.c_proj")))


def activated(g: Graph, config: GPT2Config, x: str) -> str:
    """The activation, where ONNX has the configuration's."""
    name = config.activation_function
    if name not in ("gelu_new", "gelu", "relu"):
        raise BenchError(f"activation_function={name!r}", "has no node in this graph")
    if name == "relu":
        return str(g("Relu", x))
    return str(g("Gelu", x, approximate="tanh" if name == "gelu_new" else "none"))


def linear(g: Graph, x: str, name: str) -> str:
    """x W + b."""
    return str(g("Add", g("MatMul", x, f"{name}.weight"), f"{name}.bias"))


def normed(g: Graph, config: GPT2Config, x: str, name: str) -> str:
    """LayerNorm."""
    epsilon = config.layer_norm_epsilon
    return str(g("LayerNormalization", x, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=epsilon))


def model(config: GPT2Config, g: Graph) -> Any:
    """The graph with its ins and outs declared."""

    def tensor(name: str, kind: int, axes: Sequence[str | int]) -> Any:
        return helper.make_tensor_value_info(name, kind, axes)

    head, layers = [config.n_head, config.n_embd // config.n_head], range(config.n_layer)

    def cache(which: str, length: str) -> list[Any]:
        axes = ("B", head[0], length, head[1])
        return [tensor(f"{which}.{i}.{part}", TensorProto.FLOAT, axes) for i in layers for part in ("key", "value")]

    ins = [tensor("input_ids", TensorProto.INT64, ["B", "T"]), tensor("keep", TensorProto.INT64, [1])]
    outs = [tensor("logits", TensorProto.FLOAT, ["B", "K", config.vocab_size])]
    graph = helper.make_graph(
        g.nodes, "gpt2", ins + cache("past", "S"), outs + cache("present", "N"), list(g.constants.values())
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def convert(folder: Path) -> Path:
    """Writes `model.onnx` beside the weights, unless it is there."""
    path = folder / "model.onnx"
    if not path.exists():
        temporary = path.with_suffix(".part")
        onnx.save(build(*read_folder(folder)), temporary)
        temporary.replace(path)
    return path

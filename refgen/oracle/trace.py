"""A trace: the named stages of one run of a network, recorded, saved, loaded, listed.

A stage has the name of the checkpoint's module that gives it, `h.3.attn.c_attn` or `ln_f`, so that anyone can record
theirs with hooks (docs/trace.md). Names that are not modules are explained in model.py. In every stage the
axis before the last is the position, so the steps of a generation are joined along it.

Axes    B rows, T positions, C = n_embd, H heads, D = C / H, S keys, V tokens.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors import safe_open

import refgen
from refgen.cache import Cache
from refgen.checkpoints.safetensors import read_file, write_file
from refgen.checkpoints.stored import numbers
from refgen.config import GPT2Config
from refgen.engines.engine import Engine, Watcher
from refgen.errors import OracleError, did_you_mean, listed
from refgen.inputs import check_ids, check_mask

ATTENTION = ("c_attn", "q", "k", "v", "scores", "pattern", "z", "c_proj")
MLP = ("c_fc", "act", "c_proj")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # from exact to coarse
IDS, MASK = "input_ids", "attention_mask"  # their names in a file, beside the stages


@dataclass(frozen=True)
class Trace:
    """What a run computed. `stages` are in the order of model.py, those of 16 bits widened to float32."""

    stages: Mapping[str, ndarray]
    input_ids: ndarray  # [B T] int64
    attention_mask: ndarray  # [B T] int64, 1 real and 0 padding
    dtype: str  # what it was computed in: float64, float32, float16 or bfloat16
    config: GPT2Config | None = None  # None if a foreign file does not say
    prefill: int | None = None  # how many positions went first, before the others came one by one; None for all


# --- Names and shapes -------------------------------------------------------------------------------------


def stage_names(config: GPT2Config) -> tuple[str, ...]:
    """All stages, in the order in which model.py computes them."""
    block = ("ln_1", *(f"attn.{name}" for name in ATTENTION), "resid_mid", "ln_2", *(f"mlp.{name}" for name in MLP))
    blocks = [name for i in range(config.n_layer) for name in (*(f"h.{i}.{part}" for part in block), f"h.{i}")]
    return ("drop", *blocks, "ln_f", "lm_head")


def stage_shape(name: str, config: GPT2Config, B: int, T: int) -> tuple[int, ...]:
    """The shape of a stage: `[B H T D]`, `[B H T S]` with S = T, or `[B T …]`."""
    C, H = config.n_embd, config.n_head
    leaf = name.rpartition(".")[2]
    if leaf in ("q", "k", "v"):
        return (B, H, T, C // H)
    if leaf in ("scores", "pattern"):
        return (B, H, T, T)
    widths = {"c_attn": 3 * C, "c_fc": config.inner, "act": config.inner, "lm_head": config.vocab_size}
    return (B, T, widths.get(leaf, C))


def select(config: GPT2Config, patterns: Sequence[str]) -> tuple[str, ...]:
    """The stages that any of `patterns` matches as a file name is matched: `h.*.mlp.act`, `h.[01]`, `*`."""
    names = stage_names(config)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            problem = f"matches no stage of this model, which has {config.n_layer} layers"
            raise OracleError(
                f"stage {pattern!r}",
                problem,
                remedy=did_you_mean(pattern, names) or "Such as drop, h.0.attn.pattern, 'h.*', lm_head.",
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))


# --- Recording --------------------------------------------------------------------------------------------


def record(
    engine: Engine,
    input_ids: ndarray,
    attention_mask: ndarray | None = None,
    stages: Sequence[str] = ("*",),
    prefill: int | None = None,
) -> Trace:
    """The stages that match, over `input_ids` `[B T]`, as `engine` computes them.

    With `prefill` = n the first n positions go in one pass and the others one by one through a cache, as in generation. The trace equals that of one pass up to rounding. Raises `InputError`, `OracleError`.
    """
    T = input_ids.shape[-1]
    mask = np.ones_like(input_ids) if attention_mask is None else attention_mask
    check_ids(input_ids, engine.config)
    check_mask(mask, len(input_ids), 0, T)
    if prefill is not None and not 0 < prefill <= T:
        raise OracleError(f"prefill={prefill}", f"must be from 1 to {T}, the number of positions")
    names = select(engine.config, stages)
    parts: dict[str, list[ndarray]] = {name: [] for name in names}
    cache = Cache()
    ends = range(T if prefill is None else prefill, T + 1)
    for end in ends:
        new = slice(len(cache), end)
        engine.forward(input_ids[:, new], mask[:, :end], cache=cache, note=keep(parts))
    return Trace(
        stages={name: join(name, parts[name]) for name in names},
        input_ids=input_ids,
        attention_mask=mask,
        dtype=engine.gpt2.wte.dtype.name,
        config=engine.config,
        prefill=prefill,
    )


def keep(parts: Mapping[str, list[ndarray]]) -> Watcher:
    """A note that appends copies of the stages that `parts` names; views would hold on to more than they show."""
    return lambda name, array: parts[name].append(array.copy()) if name in parts else None


def join(name: str, parts: Sequence[ndarray]) -> ndarray:
    """One stage of several passes, joined along T. Keys that did not exist yet are hidden."""
    if len(parts) == 1:
        return parts[0]
    if name.endswith(("scores", "pattern")):
        S, hidden = parts[-1].shape[-1], -np.inf if name.endswith("scores") else 0.0
        parts = [np.pad(p, [(0, 0)] * 3 + [(0, S - p.shape[-1])], constant_values=hidden) for p in parts]
    return np.concatenate(parts, axis=-2)


# --- Files ------------------------------------------------------------------------------------------------


def save(trace: Trace, path: Path) -> None:
    """Writes safetensors: the stages, `input_ids` and `attention_mask`, with the rest as metadata."""
    arrays = {**trace.stages, IDS: trace.input_ids, MASK: trace.attention_mask}
    about = {"refgen": refgen.__version__, "dtype": trace.dtype}
    if trace.config is not None:
        about["config"] = json.dumps(trace.config.to_dict())
    if trace.prefill is not None:
        about["prefill"] = str(trace.prefill)
    write_file(path, arrays, about)


def load(path: Path, config: GPT2Config) -> Trace:
    """A trace of a network of this `config`, written by `save` or by anyone's hooks.

    Names may begin with `transformer.`, and a batch of one row may lack its axis. A missing `attention_mask` is 1. The
    dtype is the one in the metadata, else the coarsest of the stages'. Raises `OracleError`, and `CheckpointError` for
    a file that is not safetensors.
    """
    tensors = {without_prefix(tensor.name): tensor for tensor in read_file(path)}
    with safe_open(path, framework="numpy") as file:
        about = file.metadata() or {}
    if IDS not in tensors:
        raise OracleError(str(path), f"has no {IDS}", remedy=f'Save the token ids beside the stages, as "{IDS}".')
    ids = with_rows(numbers(tensors.pop(IDS)))
    mask = with_rows(numbers(tensors.pop(MASK))) if MASK in tensors else np.ones_like(ids)
    check_ids(ids, config)
    check_mask(mask, len(ids), 0, ids.shape[1])
    names = known(str(path), tensors, config)
    own = GPT2Config.from_dict(json.loads(about["config"])) if "config" in about else None
    coarsest = max((list(DTYPES).index(t.dtype) for t in tensors.values() if t.dtype in DTYPES), default=1)
    return Trace(
        stages={
            name: with_shape(f"{path.name}: {name}", numbers(tensors[name]), stage_shape(name, config, *ids.shape))
            for name in names
        },
        input_ids=ids.astype(np.int64),
        attention_mask=mask.astype(np.int64),
        dtype=about.get("dtype", list(DTYPES.values())[coarsest]),
        config=own,
        prefill=int(about["prefill"]) if "prefill" in about else None,
    )


def of(
    given: Mapping[str, ndarray], input_ids: ndarray, attention_mask: ndarray, config: GPT2Config, dtype: str
) -> Trace:
    """A trace of stages that somebody gives as arrays, under the names that `load` takes. Raises `OracleError`."""
    arrays = {without_prefix(name): array for name, array in given.items()}
    return Trace(
        stages={
            name: with_shape(name, arrays[name], stage_shape(name, config, *input_ids.shape))
            for name in known("the answer", arrays, config)
        },
        input_ids=input_ids,
        attention_mask=attention_mask,
        dtype=dtype,
    )


def without_prefix(name: str) -> str:
    """The name of a stage; modules of transformers begin with another word."""
    return name.removeprefix("transformer.")


def known(where: str, given: Iterable[str], config: GPT2Config) -> list[str]:
    """These stages in the order of model.py. Refuses others."""
    names, given = stage_names(config), set(given)
    if unknown := sorted(given - set(names)):
        remedy = "Leave them out. Stages are called drop, h.0.ln_1, h.0.attn.c_attn, …, lm_head (docs/trace.md)."
        raise OracleError(where, f"names stages that refgen does not know: {listed(unknown)}", remedy=remedy)
    return [name for name in names if name in given]


def with_rows(ids: ndarray) -> ndarray:
    """Ids as `[B T]`."""
    return ids[None] if ids.ndim == 1 else ids


def with_shape(where: str, array: ndarray, shape: tuple[int, ...]) -> ndarray:
    """A stage in its shape; the axis of a single row may be missing."""
    if array.shape == shape[1:] and shape[0] == 1:
        return array[None]
    if array.shape != shape:
        raise OracleError(where, f"has shape {list(array.shape)}, must have {list(shape)}")
    return array


# --- Showing ----------------------------------------------------------------------------------------------

HEADINGS = ("stage", "shape", "min", "mean", "max", "row 0, last position: its first three numbers")


def listing(trace: Trace) -> Iterator[str]:
    """One line for each stage: name, shape, smallest, mean and largest number, and the first few of the last position.

    Hidden scores, which are -inf, are left out of the three.
    """
    width = max(map(len, (*trace.stages, HEADINGS[0])))
    shapes = {name: str(list(array.shape)) for name, array in trace.stages.items()}
    broad = max(map(len, (*shapes.values(), HEADINGS[1])))

    def line(name: str, shape: str, figures: Sequence[str], few: str) -> str:
        return f"{name:{width}}  {shape:{broad}}  " + " ".join(f"{each:>10}" for each in figures) + f"  {few}"

    yield line(HEADINGS[0], HEADINGS[1], HEADINGS[2:5], HEADINGS[5])
    for name, array in trace.stages.items():
        seen = array[array > -np.inf] if name.endswith("scores") else array
        statistics: tuple[Callable[[ndarray], float], ...] = (np.min, np.mean, np.max)
        figures = [f"{f(seen.astype(np.float64)):.4g}" for f in statistics] if seen.size else ["-"] * 3
        last = array.reshape(-1, *array.shape[-2:])[0, -1]
        yield line(name, shapes[name], figures, " ".join(f"{each:.4g}" for each in last[:3]))

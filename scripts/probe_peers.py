"""Asks released implementations the questions of the probes: `scripts/probe_peers.py PEER [NAME...]`. docs/findings.md has what they said.

A peer is a class with a way to load a probe's folder and to continue prompts greedily. Only questions without processors are asked,
since names of settings differ. Each peer needs its own package, and most their own environment; the comments say which.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from refgen.conformance.questions.cases import MUST, Case
from refgen.conformance.questions.probes import PROBES, Probe, find, write
from refgen.conformance.questions.probes.show import spelled

PLAIN = {"input_ids", "attention_mask", "max_new_tokens", "do_sample", "eos_token_id"}
Rows = Sequence[Sequence[int]]


class UnaskableError(Exception):
    """A question that this peer has no way to be asked."""


class Transformers:
    """pip install torch transformers. `kind` is an attention implementation."""

    def __init__(self, folder: Path, dtype: str = "float32", attention: str = "sdpa", cache: str | None = None) -> None:
        import torch  # noqa: PLC0415 - each peer has its own packages
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        torch.set_num_threads(1)
        self.torch, self.cache = torch, cache
        kind = getattr(torch, dtype)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, attn_implementation=attention)

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """Padded on the left with token 0."""
        P = max(map(len, prompts))
        ids = self.torch.tensor([[0] * (P - len(row)) + list(row) for row in prompts])
        mask = self.torch.tensor([[0] * (P - len(row)) + [1] * len(row) for row in prompts])
        more = {"cache_implementation": self.cache} if self.cache else {}
        out = self.model.generate(
            ids, attention_mask=mask, max_new_tokens=count, eos_token_id=list(ends) or None, pad_token_id=0, **more
        )
        return [cut(row, ends) for row in out[:, P:].tolist()]


class TransformersContinuous(Transformers):
    """The same library's continuous batching, with paged attention."""

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """Rows of different lengths."""
        import transformers  # noqa: PLC0415

        kind: Any = transformers.GenerationConfig
        config = kind(max_new_tokens=count, eos_token_id=list(ends) or -1, pad_token_id=0, do_sample=False)
        answers = self.model.generate_batch([list(row) for row in prompts], generation_config=config)
        by_prompt = list(answers.values())
        return [answer.generated_tokens for answer in by_prompt]


class CTranslate2:
    """pip install ctranslate2 torch transformers, for its own converter. `batch` asks rows of several lengths at once."""

    def __init__(self, folder: Path, compute_type: str = "float32", batch: bool = False) -> None:
        import ctranslate2  # noqa: PLC0415
        from ctranslate2.converters import TransformersConverter  # noqa: PLC0415

        target = folder / "ctranslate2"
        if not target.exists():
            TransformersConverter(str(folder)).convert(str(target))
        self.batch = batch
        self.words = json.loads((target / "vocabulary.json").read_text(encoding="utf-8"))
        self.generator = ctranslate2.Generator(str(target), device="cpu", compute_type=compute_type, intra_threads=1)

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """It takes rows as words."""
        if not self.batch and len({len(row) for row in prompts}) > 1:
            return [row for prompt in prompts for row in self.generate([prompt], count, ends)]
        results = self.generator.generate_batch(
            [[self.words[each] for each in row] for row in prompts],
            max_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=list(ends),
            return_end_token=True,
        )
        return [result.sequences_ids[0] for result in results]


class LlamaCpp:
    """pip install xllamacpp gguf. Its own server in this process. The file is written here as llama.cpp's converter does it.

    The end token is the file's; a row that stops before it has all its tokens has said it. `several` asks all rows at once.
    """

    def __init__(self, folder: Path, cache: str = "F32", flash: bool = False, quantized: str = "") -> None:
        import xllamacpp  # noqa: PLC0415

        path = folder / "model.gguf"
        self.end = self.convert(folder, path, quantized)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx = 3, 3 * 512
        params.warmup = params.fit_params = False
        params.verbosity = 0
        params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{cache}")
        state = "ENABLED" if flash else "DISABLED"
        params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{state}")
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        self.server = xllamacpp.Server(params)

    @staticmethod
    def convert(folder: Path, path: Path, quantized: str) -> int:
        """Writes the GGUF file with ids as words; the end token's id."""
        import gguf  # noqa: PLC0415

        from refgen.bench.to_gguf import renamed  # noqa: PLC0415
        from refgen.bench.weights import read_folder  # noqa: PLC0415

        config, tensors = read_folder(folder)
        end = config.vocab_size - 1
        writer = gguf.GGUFWriter(path, "gpt2")
        writer.add_block_count(config.n_layer)
        writer.add_context_length(config.n_positions)
        writer.add_embedding_length(config.n_embd)
        writer.add_feed_forward_length(config.inner)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([f"\u0120{token}" for token in range(config.vocab_size)])
        writer.add_token_types([gguf.TokenType.NORMAL] * end + [gguf.TokenType.CONTROL])
        writer.add_token_merges(["0 1"])
        writer.add_eos_token_id(end)
        writer.add_bos_token_id(end)
        for name, tensor in tensors.items():
            linear = name.startswith("h.") and tensor.ndim == 2
            data = np.ascontiguousarray(tensor.T) if linear else tensor
            kind = getattr(gguf.GGMLQuantizationType, quantized or "F32")
            if quantized and data.ndim == 2 and data.shape[1] % 32 == 0 and name != "wpe.weight":
                writer.add_tensor(renamed(name), gguf.quants.quantize(data, kind), raw_dtype=kind)
            else:
                writer.add_tensor(renamed(name), data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return end

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """All rows at once, each a request."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda row: self.row(row, count, ends), prompts))

    def row(self, prompt: Sequence[int], count: int, ends: Sequence[int]) -> list[int]:
        """One request."""
        settings = {"temperature": 0, "samplers": ["temperature"], "cache_prompt": False}
        answer = self.server.handle_completions({"prompt": list(prompt), "n_predict": count, **settings})
        if "choices" not in answer:
            raise RuntimeError(str(answer)[:200])
        said = [int(word) for word in answer["choices"][0]["text"].split()]
        stopped = len(said) < count
        if stopped and self.end not in ends:
            raise UnaskableError("the file's end token cannot be switched off")
        return cut(said + [self.end] * stopped, ends)


class OnnxRuntime:
    """pip install onnxruntime onnx. The graph is refgen's own."""

    def __init__(self, folder: Path) -> None:
        from refgen.bench.adapters.onnxruntime import Model, prepare  # noqa: PLC0415

        self.model = Model(prepare(folder), 1)

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """A row at a time: the graph has no mask for padding."""
        return [cut(self.model.generate([list(row)], count)[0], ends) for row in prompts]


class OpenVino:
    """pip install openvino onnx. The graph is refgen's own; `hint` is the precision it may use, its default if empty."""

    def __init__(self, folder: Path, hint: str = "f32") -> None:
        import openvino  # noqa: PLC0415

        from refgen.bench.adapters.onnxruntime import prepare  # noqa: PLC0415

        core = openvino.Core()
        options = {"INFERENCE_PRECISION_HINT": hint} if hint else {}
        self.model = core.compile_model(str(prepare(folder)), "CPU", options)
        self.past = [each for each in self.model.inputs if each.any_name.startswith("past.")]

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """A row at a time."""
        return [cut(self.row(list(prompt), count), ends) for prompt in prompts]

    def row(self, ids: list[int], count: int) -> list[int]:
        """One row."""
        cache = {}
        for each in self.past:
            shape = each.partial_shape
            cache[each.any_name] = np.zeros((1, shape[1].get_length(), 0, shape[3].get_length()), np.float32)
        new, said = np.array([ids]), []
        for _ in range(count):
            out = self.model({"input_ids": new, "keep": np.array([1]), **cache})
            cache = {name: out[name.replace("past.", "present.")] for name in cache}
            said.append(int(out["logits"][0, -1].argmax()))
            new = np.array([[said[-1]]])
        return said


class Mlx:
    """pip install 'mlx[cpu]' mlx-lm. It wants names without `transformer.`; `batch` is its generator of batches."""

    def __init__(self, folder: Path, dtype: str = "float32", batch: bool = False, bits: int = 0) -> None:
        import mlx.core as mx  # noqa: PLC0415
        from mlx import nn  # noqa: PLC0415
        from mlx_lm.utils import load_model  # noqa: PLC0415
        from safetensors.numpy import load_file, save_file  # noqa: PLC0415

        plain = folder / "mlx"
        if not plain.exists():
            plain.mkdir()
            tensors = load_file(folder / "model.safetensors")
            save_file(
                {name.removeprefix("transformer."): each for name, each in tensors.items()}, plain / "model.safetensors"
            )
            (plain / "config.json").write_bytes((folder / "config.json").read_bytes())
        self.mx, self.batch = mx, batch
        self.model = load_model(plain)[0]
        self.model.set_dtype(getattr(mx, dtype))
        if bits:
            nn.quantize(self.model, group_size=32, bits=bits)

    def generate(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """A row at a time, or all at once."""
        if self.batch:
            return self.together(prompts, count, ends)
        from mlx_lm.generate import generate_step  # noqa: PLC0415

        rows = []
        for row in prompts:
            steps = generate_step(self.mx.array(list(row)), self.model, max_tokens=count)
            rows.append(cut([int(token) for token, _ in steps], ends))
        return rows

    def together(self, prompts: Rows, count: int, ends: Sequence[int]) -> Rows:
        """All rows in one batch."""
        from mlx_lm.generate import BatchGenerator  # noqa: PLC0415

        generator = BatchGenerator(self.model, stop_tokens=[[end] for end in ends])
        numbers = generator.insert([list(row) for row in prompts], [count] * len(prompts))
        said: dict[int, list[int]] = {number: [] for number in numbers}
        while answers := generator.next_generated():
            for answer in answers:
                said[answer.uid].append(int(answer.token))
        return [said[number] for number in numbers]


PEERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "transformers": (Transformers, {}),
    "transformers-eager": (Transformers, {"attention": "eager"}),
    "transformers-static": (Transformers, {"cache": "static"}),
    "transformers-continuous": (TransformersContinuous, {"attention": "paged|sdpa"}),
    "ctranslate2": (CTranslate2, {}),
    "ctranslate2-int8": (CTranslate2, {"compute_type": "int8"}),
    "ctranslate2-int16": (CTranslate2, {"compute_type": "int16"}),
    "ctranslate2-batch": (CTranslate2, {"batch": True}),
    "llamacpp": (LlamaCpp, {}),
    "llamacpp-default": (LlamaCpp, {"cache": "F16", "flash": True}),
    "llamacpp-q8": (LlamaCpp, {"quantized": "Q8_0"}),
    "onnxruntime": (OnnxRuntime, {}),
    "openvino": (OpenVino, {}),
    "openvino-default": (OpenVino, {"hint": ""}),
    "mlx": (Mlx, {}),
    "mlx-bfloat16": (Mlx, {"dtype": "bfloat16"}),
    "mlx-int8": (Mlx, {"bits": 8}),
    "mlx-batch": (Mlx, {"batch": True}),
}


def cut(row: list[int], ends: Sequence[int]) -> list[int]:
    """Up to and with the first end."""
    stops = [i for i, token in enumerate(row) if token in ends]
    return row[: stops[0] + 1] if stops else row


def asked(probe: Probe) -> list[Case]:
    """The cases that any of them can be asked."""
    return [case for case in probe.cases if case.result == MUST and not case.request.keys() - PLAIN
            and not case.request["do_sample"]]  # fmt: skip


def verdict(peer: Any, probe: Probe, case: Case) -> str:
    """Empty if all rows are right, else what was said."""
    ids = case.request["input_ids"]
    masks = case.request.get("attention_mask", np.ones_like(ids).tolist())
    prompts = [
        [each for each, real in zip(row, mask, strict=True) if real] for row, mask in zip(ids, masks, strict=True)
    ]
    ends = case.request.get("eos_token_id", probe.settings.get("eos_token_id"))
    ends = [] if ends is None else np.array(ends).reshape(-1).tolist()
    wanted = [row["new_ids"] for row in case.expected["rows"]]
    rows = peer.generate(prompts, case.request["max_new_tokens"], ends)
    for prompt, row, want in zip(prompts, rows, wanted, strict=True):
        if list(row) != want:
            return f"{spelled(probe, prompt)!r} -> {spelled(probe, row)!r}, not {spelled(probe, want)!r}"
    return ""


def main() -> None:
    """One line for each probe, and one for each wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every wrong answer, not the first of each probe")
    options = parser.parse_args()
    make, arguments = PEERS[options.peer]
    with tempfile.TemporaryDirectory() as root:
        for name in options.names or PROBES:
            probe = find(name)
            folder = Path(root) / name
            write(probe, folder)
            wrong = []
            try:
                peer = make(folder, **arguments)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                wrong.append(f"does not load: {type(error).__name__}: {str(error)[:200]}")
            cases = [] if wrong else asked(probe)
            for case in cases:
                try:
                    said = verdict(peer, probe, case)
                except UnaskableError:
                    continue
                except Exception as error:  # noqa: BLE001
                    said = f"{type(error).__name__}: {str(error)[:200]}"
                wrong += [f"{case.id}: {said}"] if said else []
            right = max(len(cases) - len(wrong), 0)
            print(f"{name:17} {'FAIL' if wrong else 'PASS'} {right}/{len(asked(probe))}", flush=True)
            for line in wrong if options.all else wrong[:1]:
                print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()

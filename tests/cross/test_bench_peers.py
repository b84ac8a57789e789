"""The benchmark's peers compute what refgen computes: else their times would mean nothing."""

import importlib.util

import numpy as np
import pytest

from refgen import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from refgen.bench.process import Worker
from refgen.bench.subjects import PEERS
from refgen.bench.weights import random_folder, shape_config
from refgen.checkpoints import assemble
from tests.strategies import random_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights of the smallest shape."""
    return random_folder(shape_config("tiny"), tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_says_what_refgen_says(peer, folder):
    """One row, several rows and, where steps are told one by one, the same greedy tokens and as many ticks."""
    if peer.missing:
        pytest.skip(f"{' and '.join(peer.missing)} not installed: {peer.remedy}")
    ids = np.random.default_rng(0).integers(0, 128, (3, 16))
    expected = AutoModelForCausalLM.from_pretrained(folder).generate(ids, max_new_tokens=24)[:, 16:].tolist()
    with Worker(peer.name, peer.adapter, threads=1) as worker:
        path = worker.ask("prepare", folder=str(folder))["answer"]
        assert worker.ask("load", path=path, threads=1, arguments={})["answer"]
        for rows, ticks in ((1, False), (3, False), (1, True)):
            answer = worker.ask("generate", ids=ids[:rows].tolist(), count=24, settings={}, ticks=ticks)
            assert answer["answer"] == expected[:rows]
            assert len(answer["ticks"]) == 24 * ticks


@pytest.mark.parametrize(
    "switches",
    [{}, {"tie_word_embeddings": False}, {"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}],
    ids=lambda switches: next(iter(switches), "plain"),
)
def test_the_onnx_graph_gives_refgens_logits(switches):
    """All positions at once, and one by one with the cache. Bound: both round in float32, logits of order one."""
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")):
        pytest.skip("onnx and onnxruntime not installed: pip install onnx onnxruntime")
    import onnxruntime

    from refgen.bench.to_onnx import build

    config = GPT2Config(
        vocab_size=50, n_positions=12, n_embd=12, n_layer=2, n_head=3, bos_token_id=None, eos_token_id=None, **switches
    )
    tensors = random_tensors(config, 1, "float32")
    expected = GPT2LMHeadModel(assemble(config, tensors))(
        ids := np.random.default_rng(0).integers(0, 50, (2, 12))
    ).logits
    session = onnxruntime.InferenceSession(build(config, tensors).SerializeToString())
    names = [f"{i}.{part}" for i in range(2) for part in ("key", "value")]
    cache = [np.zeros((2, 3, 0, 4), np.float32)] * 4

    def forward(ids, keep, cache):
        feeds = {"input_ids": ids, "keep": np.array([keep])}
        return session.run(None, feeds | {f"past.{name}": held for name, held in zip(names, cache, strict=True)})

    whole, *_ = forward(ids, 0, cache)
    bound = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(whole, expected, rtol=0, atol=bound)
    logits, *cache = forward(ids[:, :5], 1, cache)
    np.testing.assert_allclose(logits, expected[:, 4:5], rtol=0, atol=bound)
    for t in range(5, 12):
        logits, *cache = forward(ids[:, t : t + 1], 1, cache)
        np.testing.assert_allclose(logits, expected[:, t : t + 1], rtol=0, atol=bound)

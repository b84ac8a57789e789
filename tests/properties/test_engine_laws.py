"""What every engine is held to: the definition, whatever the configuration, mask, batch, cache and cut.

The definition is run in float64, which errs by some units in the last place. A float32 engine may be off by what rounding
explains (oracle/noise.py: 1.5 times the expected error over all, 4 times at a position, wider where few numbers are looked
at), a float64 one by CLOSE. `canonical` has its golden bits besides (tests/golden, test_canonical_laws.py).
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refgen import Cache, GPT2Config, GPT2LMHeadModel
from refgen.checkpoints import assemble, disassemble
from refgen.engines import ENGINES, find_engine
from refgen.model import forward
from refgen.oracle.margins import judge_tokens
from refgen.oracle.noise import expected_error, judge_error
from tests.strategies import models, prompts, random_model

CLOSE = (
    1e-11  # of the largest logit: sums in another order and fused steps, through at most four layers (2e-13 was seen)
)
FLOAT64 = [name for name in ENGINES if name != "canonical"]
LARGEST = {"error": 0.0}


def wide(gpt2):
    """The same weights in float64."""
    return assemble(gpt2.config, {name: tensor.astype(np.float64) for name, tensor in disassemble(gpt2).items()})


def in_pieces(engine, ids, mask, cuts):
    """The logits of a prompt fed in pieces through a cache."""
    cache, start, pieces = Cache(), 0, []
    for end in [*cuts, ids.shape[1]]:
        pieces.append(engine.forward(ids[:, start:end], mask[:, :end], cache=cache))
        start = end
    assert len(cache) == ids.shape[1]
    return np.concatenate(pieces, axis=1)


def drawn(data, dtype):
    """A network, a padded batch, and where it is cut."""
    model = data.draw(models(dtype))
    ids, mask = data.draw(prompts(model.config.vocab_size))
    cuts = sorted(data.draw(st.sets(st.integers(1, ids.shape[1] - 1), max_size=2))) if ids.shape[1] > 1 else []
    return model.gpt2, ids, mask, cuts


@pytest.mark.parametrize("name", ENGINES)
@given(st.data())
def test_float32_is_the_definition_within_rounding(name, data):
    """FWD-21: every float32 engine is as near to the definition in float64 as rounding explains."""
    gpt2, ids, mask, cuts = drawn(data, "float32")
    logits = in_pieces(find_engine(name)(gpt2), ids, mask, cuts)
    assert logits.dtype == np.float32
    judged = judge_error(expected_error(gpt2, ids, mask, "float32"), logits)
    assert judged.passes, judged


@pytest.mark.parametrize("name", FLOAT64)
@given(st.data())
def test_float64_is_the_definition_closely(name, data):
    """FWD-21: every float64 engine is the definition but for the last digits, masked positions included."""
    gpt2, ids, mask, cuts = drawn(data, "float64")
    engine, keep = find_engine(name)(gpt2), data.draw(st.integers(1, ids.shape[1]))
    logits, exact = in_pieces(engine, ids, mask, cuts), forward(gpt2, ids, mask)
    assert logits.dtype == np.float64
    last = engine.forward(ids, mask, logits_to_keep=keep)
    assert np.abs(last - exact[:, -keep:]).max() <= CLOSE * max(np.abs(exact).max(), 1e-300)
    off = np.abs(logits - exact).max() / max(np.abs(exact).max(), 1e-300)
    LARGEST["error"] = max(LARGEST["error"], off)
    assert off <= CLOSE


@pytest.mark.parametrize("name", ENGINES)
@given(st.data())
def test_stages_are_those_of_the_definition(name, data):
    """Every engine shows the stages that model.py names, in its order and shapes, as plain arrays, and computes the same."""
    gpt2, ids, mask, _ = drawn(data, "float32")
    engine, mine, right = find_engine(name)(gpt2), {}, {}
    logits = engine.forward(ids, mask, note=mine.setdefault)
    forward(wide(gpt2), ids, mask, note=right.setdefault)
    assert list(mine) == list(right)
    assert all(type(mine[stage]) is np.ndarray and mine[stage].shape == right[stage].shape for stage in right)
    noise = expected_error(gpt2, ids, mask, "float32")
    assert judge_error(noise, logits).passes
    assert judge_error(noise, mine["lm_head"]).passes


@pytest.mark.parametrize("name", ENGINES)
@settings(max_examples=25)
@given(st.data())
def test_greedy_tokens_are_the_best(name, data):
    """GREEDY-01: every engine says the definition's greedy tokens, except where rounding explains a tie."""
    gpt2, ids, mask, _ = drawn(data, "float32")
    model = GPT2LMHeadModel(gpt2, engine=name)
    new = min(8, gpt2.config.n_positions - ids.shape[1])
    made = model.generate(ids, mask, max_new_tokens=new, eos_token_id=None, pad_token_id=None)[:, ids.shape[1] :]
    for row in range(len(ids)):
        prompt = ids[row, mask[row].astype(bool)].tolist()
        assert judge_tokens(gpt2, prompt, made[row].tolist()).verdict in ("PASS", "TIE")


@pytest.mark.parametrize("name", ENGINES)
@given(st.data())
def test_rows_come_and_go(name, data):
    """BATCH-01, CACHE-01: rows leave a running batch and others join it, and each has the logits it has alone."""
    model = data.draw(models("float32" if name == "canonical" else "float64", n_positions=24))
    engine, V = find_engine(name)(model.gpt2), model.config.vocab_size
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    texts = [rng.integers(0, V, data.draw(st.integers(1, 6))) for _ in range(3)]
    caches = [Cache() for _ in texts]
    alone = [engine.forward(text[None], cache=cache)[:, -1] for text, cache in zip(texts, caches, strict=True)]
    together = caches[0]
    for other in caches[1:]:
        together.join(other)
    leaving = data.draw(st.integers(0, 2))
    staying = [row for row in range(3) if row != leaving]
    together.select(np.array(staying))
    S = len(together)
    mask = np.array([[0] * (S - len(texts[row])) + [1] * len(texts[row]) for row in staying])
    new = np.concatenate([alone[row].argmax(axis=-1)[:, None] for row in staying])
    found = engine.forward(new, np.column_stack([mask, np.ones(2, int)]), cache=together)
    for at, row in enumerate(staying):
        expected = engine.forward(np.concatenate([texts[row], new[at]])[None])[:, -1]
        bound = 0 if name == "canonical" else CLOSE * np.abs(expected).max()
        assert np.abs(found[at] - expected).max() <= bound


@pytest.mark.parametrize("name", ENGINES)
def test_an_interrupted_pass_leaves_the_cache_as_it_was(name):
    """CACHE-04: an engine that fails in the middle leaves the cache as it was."""
    config = GPT2Config(
        vocab_size=7, n_positions=6, n_embd=4, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    engine = find_engine(name)(random_model(config, 3, "float32").gpt2)
    cache = Cache()
    engine.forward(np.array([[1, 2]]), cache=cache)

    def fail(stage, _):
        if stage == "h.1.ln_2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.forward(np.array([[3]]), cache=cache, note=fail)
    assert len(cache) == 2
    after = engine.forward(np.array([[3]]), cache=cache)
    np.testing.assert_allclose(after, engine.forward(np.array([[1, 2, 3]]))[:, -1:], rtol=0, atol=1e-5)


def test_figures(figures):
    """The largest float64 difference that the laws above saw."""
    figures.append(f"engines in float64 beside the definition: {LARGEST['error']:.1e} of the largest logit at most")

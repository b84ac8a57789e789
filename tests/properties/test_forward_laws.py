"""Laws of the forward pass that need no second implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refgen import Cache
from refgen.engines.numpy import parts, threads
from tests.strategies import models, prompts

ROUNDING = 1e-12  # float64 logits of size 10, summed in another order


@given(st.data())
def test_later_tokens_change_nothing_before(data):
    """FWD-09: changing a token leaves the logits at earlier positions exactly as they were."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    column = data.draw(st.integers(0, ids.shape[1] - 1))
    changed = ids.copy()
    changed[:, column] = (changed[:, column] + 1) % model.config.vocab_size
    before, after = model(ids, mask).logits, model(changed, mask).logits
    np.testing.assert_array_equal(before[:, :column], after[:, :column])


@given(st.data())
def test_padding_holds_nothing(data):
    """FWD-09: what stands in masked columns changes no real token's logits."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    other = np.where(mask, ids, data.draw(st.integers(0, model.config.vocab_size - 1)))
    real = mask.astype(bool)
    np.testing.assert_array_equal(model(ids, mask).logits[real], model(other, mask).logits[real])


@given(st.data())
def test_a_row_is_what_it_would_be_alone(data):
    """PAD-05, BATCH-01: a row in a padded batch has the logits it has alone and unpadded."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    together = model(ids, mask).logits
    for row in range(len(ids)):
        real = mask[row].astype(bool)
        np.testing.assert_allclose(
            together[row, real], model(ids[row : row + 1, real]).logits[0], rtol=0, atol=ROUNDING
        )


@given(st.data())
def test_cached_is_uncached(data):
    """CACHE-02: a prompt fed in any pieces has the logits it has at once."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    cuts = sorted(data.draw(st.sets(st.integers(1, ids.shape[1]), max_size=3)) | {ids.shape[1]})
    cache, start, pieces = None, 0, []
    for end in cuts:
        output = model(ids[:, start:end], mask[:, :end], past_key_values=cache)
        cache, start = output.past_key_values, end
        pieces.append(output.logits)
    assert len(cache) == ids.shape[1]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), model(ids, mask).logits, rtol=0, atol=ROUNDING)


@given(st.data())
def test_the_last_positions_alone(data):
    """FWD-20: `logits_to_keep` gives the last positions' logits, all of them for 0 or more than there are."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    keep = data.draw(st.integers(0, ids.shape[1] + 2))
    kept, whole = model(ids, mask, logits_to_keep=keep).logits, model(ids, mask).logits
    np.testing.assert_allclose(kept, whole[:, -keep:], rtol=0, atol=ROUNDING)


@given(st.data())
def test_default_positions_are_those_of_the_mask(data):
    """PAD-04: explicit positions equal to the defaults change nothing; other positions are honoured."""
    model = data.draw(models())
    ids, mask = data.draw(prompts(model.config.vocab_size))
    places = (mask.cumsum(axis=1) - 1) * mask
    np.testing.assert_array_equal(model(ids, mask, places).logits, model(ids, mask).logits)
    assert np.abs(model(ids, mask, places + 1).logits - model(ids, mask).logits).max() > 0


@given(st.data())
def test_float32_is_close_to_float64(data):
    """FWD-21: the same weights in float32 give the same logits to float32 rounding."""
    model = data.draw(models("float32"))
    ids, mask = data.draw(prompts(model.config.vocab_size))
    from refgen import GPT2LMHeadModel
    from refgen.checkpoints import assemble, disassemble

    wide = {name: tensor.astype(np.float64) for name, tensor in disassemble(model.gpt2).items()}
    exact = GPT2LMHeadModel(assemble(model.config, wide))(ids, mask).logits[mask.astype(bool)]
    narrow = model(ids, mask).logits[mask.astype(bool)]
    assert np.abs(narrow - exact).max() <= 2e-5 * np.abs(exact).max()


@given(models(), st.data())
def test_parts_are_the_whole(model, data):
    """FWD-09, FWD-14, FWD-20: in parts, by any number of threads, a pass has the logits and leaves the cache of one that is whole."""
    ids, mask = data.draw(prompts(model.config.vocab_size, width=16))
    cut, size = data.draw(st.integers(0, ids.shape[1] - 1)), data.draw(st.integers(1, 12))
    keep, workers = data.draw(st.integers(0, ids.shape[1] - cut)), data.draw(st.integers(1, 3))

    def run(**how):
        cache = Cache()
        if cut:
            model(ids[:, :cut], mask[:, :cut], past_key_values=cache)
        logits = model(ids[:, cut:], mask, past_key_values=cache, logits_to_keep=keep, **how).logits
        return logits, model(
            ids[:, :1], np.pad(mask, [(0, 0), (0, 1)], constant_values=1), past_key_values=cache
        ).logits

    expected = run(note=lambda *_: None)  # who looks at stages sees whole ones
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "LEAST", size)
        patch.setattr(parts, "MOST", size)
        patch.setattr(parts, "get_num_threads", lambda: workers)
        patch.setattr(threads, "BLOCK", size)
        found = run()
    for logits, wanted in zip(found, expected, strict=True):
        assert logits.shape == wanted.shape
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-11 * np.abs(wanted).max())

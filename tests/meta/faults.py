"""Planted faults: for a rule, a one-line change to the code that breaks it, and the test that must go red.

`find` stands exactly once in `file`; a fault whose text has gone stale fails by itself. A test may be named
without its parameters. The list grows with the rules: a rule of SPEC.md without a fault has a reason in WITHOUT.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """In `file` of refgen, `find` becomes `replace`; `test` catches it."""

    rule: str
    file: str
    find: str
    replace: str
    test: str


MODEL = "tests/unit/test_model.py::"
FORWARD = "tests/properties/test_forward_laws.py::"
LAWS = "tests/properties/test_generation_laws.py::"
PROCESSORS = "tests/unit/test_processors.py::"
PICK = "tests/unit/test_pick.py::"
LOOP = "tests/unit/test_loop.py::"
STOPPING = "tests/unit/test_stopping.py::"
PROMPT = "tests/unit/test_prompt.py::"
SETTINGS = "tests/unit/test_generation_config.py::"
GENERATE = "tests/unit/test_generate.py::"
STREAMING = "tests/unit/test_streaming.py::"
CHECKPOINT = "tests/unit/test_checkpoint.py::"
CONFIG = "tests/unit/test_config.py"
TOKENIZER = "tests/unit/test_tokenizer.py"
SPEC = "tests/docs/test_documents.py::test_every_block_runs[SPEC.md]"

FAULTS = [
    # The forward pass
    Fault("FWD-01", "model.py", "gpt2.wte[input_ids] + gpt2.wpe[position_ids]", "gpt2.wte[input_ids]", SPEC),
    Fault("FWD-02", "model.py", "position_ids = positions(attention_mask, T)",
          "position_ids = positions(np.ones_like(attention_mask), T)", FORWARD + "test_a_row_is_what_it_would_be_alone"),
    Fault("FWD-03", "model.py", "return x + mlp(normed, f.mlp,", "return mlp(normed, f.mlp,", SPEC),
    Fault("FWD-04", "model.py", "project(x, gpt2.lm_head.T)", "project(x, gpt2.lm_head.T) * 1.01", SPEC),
    Fault("FWD-05", "model.py", "np.sqrt(variance + epsilon)", "(np.sqrt(variance) + epsilon)",
          MODEL + "test_layer_norm_by_hand"),
    Fault("FWD-05", "model.py", "(centred * centred).mean(axis=-1, keepdims=True)",
          "(centred * centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)", MODEL + "test_layer_norm_by_hand"),
    Fault("FWD-06", "model.py", "return project(x, f.weight) + f.bias", "return project(x, f.weight)",
          MODEL + "test_linear_stores_weights_in_out"),
    Fault("FWD-07", "model.py", "return x.reshape(*x.shape[:2], n_head, -1).swapaxes(1, 2)",
          "return x.reshape(*x.shape[:2], -1, n_head).swapaxes(2, 3).swapaxes(1, 2)", SPEC),
    Fault("FWD-08", "model.py", "scale / (layer + 1)", "scale / max(layer, 1)", MODEL + "test_attention_scale_switches"),
    Fault("FWD-09", "model.py", "np.tri(T, S, S - T, dtype=bool)", "np.tri(T, S, S - T + 1, dtype=bool)",
          FORWARD + "test_later_tokens_change_nothing_before"),
    Fault("FWD-09", "model.py", " & attention_mask.astype(bool)[:, None, None, :]", " & np.ones_like(attention_mask, "
          "dtype=bool)[:, None, None, :]", FORWARD + "test_padding_holds_nothing"),
    Fault("FWD-10", "model.py", "np.where(visible, q @ k.swapaxes(-1, -2) * scale, -np.inf)",
          "np.where(visible, q @ k.swapaxes(-1, -2) * scale, q @ k.swapaxes(-1, -2) * scale - 1e4)", SPEC),
    Fault("FWD-11", "model.py", "np.maximum(e.sum(axis=-1, keepdims=True), 1.0)", "e.sum(axis=-1, keepdims=True)",
          MODEL + "test_softmax_of_nothing_is_zero"),
    Fault("FWD-12", "model.py", "if attention_mask.shape != (B, past + T):", "if attention_mask.shape[0] != B:",
          MODEL + "test_what_the_forward_pass_refuses"),
    Fault("FWD-13", "model.py", "np.exp(x - x.max(axis=-1, keepdims=True, initial=np.finfo(x.dtype).min))", "np.exp(x)",
          MODEL + "test_softmax_is_a_distribution"),
    Fault("FWD-14", "config.py", "4 * self.n_embd if self.n_inner is None", "3 * self.n_embd if self.n_inner is None", SPEC),
    Fault("FWD-15", "activations.py", '"relu2": relu2', '"relu2": relu', "tests/cross/test_forward.py::"
          "test_activations_equal_transformers"),
    Fault("FWD-16", "model.py", "0.044715", "0.0447", MODEL + "test_gelu_new_is_the_tanh_form"),
    Fault("FWD-17", "checkpoint.py", "head = wte if config.tie_word_embeddings", "head = wte.copy() if "
          "config.tie_word_embeddings", SPEC),
    Fault("FWD-20", "model.py", "x[:, -logits_to_keep:]", "x[:, :logits_to_keep or None]",
          FORWARD + "test_the_last_positions_alone"),
    Fault("FWD-21", "model.py", "math.sqrt(2.0 / math.pi)", "np.sqrt(2.0 / np.pi)",
          MODEL + "test_functions_keep_their_promised_shapes_and_dtypes"),
    Fault("FWD-23", "model.py", "if not 0 <= worst < config.n_positions:", "if not 0 <= worst <= config.n_positions:",
          MODEL + "test_what_the_forward_pass_refuses"),
    Fault("FWD-24", "model.py", "if input_ids.ndim != 2 or 0 in input_ids.shape:", "if input_ids.ndim != 2:",
          MODEL + "test_what_the_forward_pass_refuses"),
    Fault("FWD-27", "auto.py", "return CausalLMOutput(logits, cache)", "return CausalLMOutput(logits, Cache())", SPEC),
    Fault("FWD-29", "config.py", 'if entries.get("add_cross_attention"):', 'if entries.get("cross_attention"):', SPEC),
    # The cache
    Fault("CACHE-01", "cache.py", "room[1, :, :, self._length : end] = v", "room[1, :, :, self._length : end] = k",
          MODEL + "test_cache_grows_without_losing_anything"),
    Fault("CACHE-02", "model.py", "    cache.advance(T)\n", "    cache.advance(T - 1 if T > 1 else T)\n",
          FORWARD + "test_cached_is_uncached"),
    Fault("CACHE-04", "cache.py", "        return room[0, :, :, :end], room[1, :, :, :end]",
          "        self._length = end if layer == 1 else self._length\n        return room[0, :, :, :end], room[1, :, :, :end]",
          MODEL + "test_a_failed_pass_leaves_the_cache_as_it_was"),
    Fault("CACHE-06", "cache.py", "self._length = length", "self._length -= length", MODEL + "test_cache_crops_and_refuses"),
    # Prompts
    Fault("IN-01", "generation/prompt.py", 'if array.dtype.kind not in "iu" and array.size:', 'if array.dtype.kind == "U":',
          PROMPT + "test_ids_that_are_refused"),
    Fault("IN-02", "generation/prompt.py", "np.array([[config.bos_token_id]])", "np.array([[0]])",
          PROMPT + "test_no_prompt_is_the_beginning_of_text"),
    Fault("IN-03", "generation/prompt.py", "if 0 in ids.shape:", "if ids.shape[0] == 0:", PROMPT + "test_ids_that_are_refused"),
    Fault("IN-04", "generation/prompt.py", "array = np.array(values)", "array = np.asarray(values)\n        array[0] *= 1"
          "\n        return array", PROMPT + "test_ids_are_copied_as_int64"),
    Fault("PAD-01", "generation/prompt.py", "return (~left).astype(np.int64)", "return np.ones_like(ids)",
          PROMPT + "test_left_padding_is_inferred"),
    Fault("PAD-02", "generation/prompt.py", "if (padding & ~left).any() or", "if",
          PROMPT + "test_a_pad_id_inside_the_text_is_an_error"),
    Fault("PAD-03", "generation/prompt.py", "(left.sum(axis=1) > 1).any()", "False", PROMPT + "test_pad_that_is_also_the_end"),
    Fault("PAD-04", "model.py", "(attention_mask.cumsum(axis=-1) - 1) * attention_mask",
          "np.maximum(attention_mask.cumsum(axis=-1) - 1, 0)", MODEL + "test_positions_count_real_tokens"),
    Fault("PAD-05", "model.py", "& attention_mask.astype(bool)[:, None, None, :]",
          "& attention_mask[::-1].astype(bool)[:, None, None, :]", LAWS + "test_a_row_generates_what_it_would_alone"),
    Fault("PAD-06", "generation/prompt.py", "np.flatnonzero(mask[:, -1] == 0)", "np.flatnonzero(mask.sum(axis=1) == 0)",
          PROMPT + "test_masks_that_are_refused"),
    Fault("PAD-07", "generation/prompt.py", "if mask.shape != ids.shape:", "if mask.shape[0] != ids.shape[0]:",
          PROMPT + "test_masks_that_are_refused"),
    Fault("BATCH-01", "model.py", "e / np.maximum(e.sum(axis=-1, keepdims=True), 1.0)",
          "e / np.maximum(e.sum(axis=-1, keepdims=True).max(axis=0, keepdims=True), 1.0)",
          FORWARD + "test_a_row_is_what_it_would_be_alone"),
    # Length and end
    Fault("LEN-01", "generation/generate.py", "return prompt.width + config.max_new_tokens",
          "return prompt.width + config.max_new_tokens - 1", GENERATE + "test_explicit_lengths"),
    Fault("LEN-01", "generation/config.py", "if one_set != other_set:", "if False:", SETTINGS + "test_the_later_limit_counts"),
    Fault("LEN-02", "generation/generate.py", "if prompt.width >= limit:", "if prompt.width > limit:",
          GENERATE + "test_calls_that_are_refused"),
    Fault("LEN-03", "generation/generate.py", "min(prompt.width + 20, n_positions)", "20", GENERATE + "test_default_length"),
    Fault("LEN-04", "generation/stopping.py", "mask.sum(axis=1) > n_positions", "mask.sum(axis=1) >= n_positions",
          GENERATE + "test_one_token_more_than_positions"),
    Fault("LEN-05", "generation/stopping.py", "mask.sum(axis=1) > n_positions", "np.full(len(ids), ids.shape[1] > n_positions)",
          STOPPING + "test_context_counts_tokens"),
    Fault("LEN-07", "generation/processors.py", "least=prompt.width + config.min_new_tokens", "least=config.min_new_tokens",
          LAWS + "test_ends_and_limits"),
    Fault("LEN-08", "generation/processors.py", "if ids.shape[1] >= least:", "if ids.shape[1] > least:",
          PROCESSORS + "test_min_length_counts_columns"),
    Fault("STOP-01", "generation/stopping.py", '        "eos": partial(eos, eos_ids=eos_ids),\n        "length": partial(length, '
          "max_length=max_length),\n", '        "length": partial(length, max_length=max_length),\n        "eos": partial(eos, '
          "eos_ids=eos_ids),\n", LOOP + "test_end_and_limit_together_are_the_end"),
    Fault("STOP-02", "generation/stopping.py", "np.isin(ids[:, -1], eos_ids)", "np.isin(ids, eos_ids).any(axis=1)",
          LOOP + "test_an_end_token_in_the_prompt_stops_nothing"),
    Fault("STOP-03", "generation/stopping.py", "np.isin(ids[:, -1], eos_ids)", "np.isin(ids[:, -1], eos_ids[:1])",
          STOPPING + "test_only_the_newest_token_ends_a_row"),
    Fault("STOP-04", "generation/loop.py", "while not all(finish):", "while not any(finish):",
          LOOP + "test_finished_rows_are_filled_and_masked"),
    Fault("STOP-05", "generation/loop.py", "np.where(running, pick(scores), pad or 0)", "pick(scores)",
          LAWS + "test_ends_and_limits"),
    Fault("STOP-06", "generation/loop.py", "            was or next(", "            next(",
          LOOP + "test_finished_rows_are_filled_and_masked"),
    Fault("STOP-07", "generation/generate.py", "return config.eos_ids[0]", "return config.eos_ids[-1]",
          GENERATE + "test_finished_rows_are_filled_with_the_first_end_token"),
    Fault("STOP-08", "generation/generate.py", "token_id >= vocab_size", "token_id > vocab_size",
          GENERATE + "test_calls_that_are_refused"),
    # The loop
    Fault("LOOP-01", "generation/loop.py", "scores = processor(ids, scores)", "processor(ids, scores)",
          LOOP + "test_processors_see_all_ids_and_leave_logits_alone"),
    Fault("GREEDY-01", "generation/pick.py", "return scores.argmax(axis=1)",
          "return scores.shape[1] - 1 - scores[:, ::-1].argmax(axis=1)", PICK + "test_greedy_takes_the_lowest_of_the_best"),
    Fault("GREEDY-02", "generation/loop.py", ".astype(np.float32)", ".astype(np.float64)",
          LOOP + "test_float64_differences_below_float32_are_ties"),
    Fault("GREEDY-03", "generation/loop.py", "        check_scores(scores, logits, running)\n", "",
          LOOP + "test_logits_that_are_no_numbers_are_an_error"),
    Fault("GREEDY-04", "generation/pick.py", "return scores.argmax(axis=1)",
          "return (scores + np.random.default_rng().random(scores.shape)).argmax(axis=1)",
          LAWS + "test_greedy_is_deterministic"),
    Fault("GREEDY-05", "generation/processors.py", "    if not config.samples:\n        return\n", "",
          PROCESSORS + "test_greedy_has_no_processors_that_shape_chance"),
    Fault("GREEDY-07", "generation/config.py", "> 1 and not config.samples:", "> 1 and not config.do_sample:",
          SETTINGS + "test_settings_that_are_refused"),
    # Processors
    Fault("PROC-01", "generation/processors.py",
          "    if config.top_k:\n        yield partial(top_k, k=config.top_k)\n    if config.top_p is not None and "
          "config.top_p < 1.0:\n        yield partial(top_p, p=config.top_p)\n",
          "    if config.top_p is not None and config.top_p < 1.0:\n        yield partial(top_p, p=config.top_p)\n    if "
          "config.top_k:\n        yield partial(top_k, k=config.top_k)\n", PROCESSORS + "test_processor_order"),
    Fault("PROC-05", "generation/config.py", '"top_k": 50, "top_p"', '"top_k": 0, "top_p"',
          PROCESSORS + "test_neutral_values_build_nothing"),
    Fault("REP-01", "generation/processors.py", "np.where(values < 0,", "np.where(values > 0,",
          PROCESSORS + "test_repetition_penalty_by_sign"),
    Fault("REP-02", "generation/processors.py", "np.unique(ids[row, first:])", "np.unique(ids[row])",
          PROCESSORS + "test_repetition_penalty_ignores_left_padding"),
    Fault("REP-03", "generation/config.py", "lambda r: 0 < r < math.inf", "lambda r: 0 <= r < math.inf",
          SETTINGS + "test_settings_that_are_refused"),
    Fault("TEMP-01", "generation/processors.py", "warmed = scores / np.float32(value)", "warmed = scores * np.float32(value)",
          PROCESSORS + "test_temperature_divides"),
    Fault("TEMP-02", "generation/config.py", "return bool(self.do_sample) and self.temperature != 0",
          "return bool(self.do_sample)", LAWS + "test_chance_settings_never_change_greedy"),
    Fault("TEMP-03", "generation/processors.py", "if not np.isfinite(warmed[np.isfinite(scores)]).all():", "if False:",
          PROCESSORS + "test_temperature_that_overflows_is_an_error"),
    Fault("TOPK-01", "generation/processors.py", "np.where(scores < kth,", "np.where(scores <= kth,",
          PROCESSORS + "test_top_k_keeps_ties_with_the_kth"),
    Fault("TOPK-02", "generation/processors.py", "k = min(k, scores.shape[1])", "k = min(k, scores.shape[1] - 1)",
          PROCESSORS + "test_top_k_larger_than_the_vocabulary_keeps_all"),
    Fault("TOPK-03", "generation/processors.py", "    if config.top_k:\n", "    if config.top_k and config.top_k > 1:\n",
          LAWS + "test_top_k_1_is_greedy"),
    Fault("TOPP-01", "generation/processors.py", "removed = mass <= np.float32(1 - p)", "removed = mass < np.float32(1 - p)",
          PROCESSORS + "test_top_p_at_exact_boundaries"),
    Fault("TOPP-01", "generation/processors.py", "    removed[:, -1] = False\n", "",
          PROCESSORS + "test_top_p_at_exact_boundaries"),
    Fault("TOPP-02", "generation/processors.py", "softmax(np.take_along_axis(scores, order, axis=1))",
          "np.exp(np.take_along_axis(scores, order, axis=1))", PROCESSORS + "test_top_p_by_adding_up"),
    Fault("TOPP-03", "generation/processors.py",
          'order = scores.shape[1] - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")',
          'order = np.argsort(scores, axis=1, kind="stable")', PROCESSORS + "test_top_p_at_exact_boundaries"),
    Fault("TOPP-04", "generation/config.py", '"top_p": (real(lambda p: 0 <= p <= 1,', '"top_p": (real(lambda p: 0 <= p,',
          SETTINGS + "test_settings_that_are_refused"),
    Fault("TOPP-05", "generation/processors.py", "    if config.temperature not in (None, 1.0):\n        yield partial("
          "temperature, value=config.temperature)\n    if config.top_k:\n", "    if config.top_k:\n",
          PROCESSORS + "test_processor_order"),
    Fault("MINP-01", "generation/processors.py", "np.where(probabilities < np.float32(p)", "np.where(probabilities <= "
          "np.float32(p)", PROCESSORS + "test_min_p_keeps_equality"),
    Fault("WARP-02", "generation/processors.py", "    return warmed\n", "    return np.nan_to_num(warmed)\n",
          PROCESSORS + "test_temperature_leaves_removed_tokens_removed"),
    # Chance
    Fault("SAMP-01", "generation/pick.py", "(softmax(scores) / exponentials).argmax(axis=1)", "(softmax(scores * 0.9) / "
          "exponentials).argmax(axis=1)", PICK + "test_multinomial_law"),
    Fault("SAMP-02", "generation/pick.py", "(softmax(scores) / exponentials)", "(softmax(scores) * exponentials)", SPEC),
    Fault("SAMP-03", "generation/pick.py", "high << np.uint64(32) | low", "low << np.uint64(32) | high",
          PICK + "test_the_stream_is_mt19937"),
    Fault("SAMP-04", "generation/pick.py", "stream.exponentials(scores.size).reshape(scores.shape)",
          "stream.exponentials(scores.size).reshape(scores.shape[::-1]).T", PICK + "test_sharing_a_stream_is_row_after_row"),
    Fault("SAMP-05", "generation/generate.py", "return shared_stream(seeds), seeds", "return shared_stream(seeds), 0",
          LAWS + "test_a_seed_is_reported_when_none_was_given"),
    Fault("SAMP-07", "generation/prompt.py", "self.ids.repeat(n, axis=0)", "np.tile(self.ids, (n, 1))",
          PROMPT + "test_repeated_rows_stand_together"),
    Fault("SAMP-08", "generation/loop.py", "np.flatnonzero(running & ~np.isfinite(best))",
          "np.flatnonzero(running & np.isnan(best))", LOOP + "test_nothing_left_to_choose_is_an_error"),
    Fault("SAMP-09", "generation/pick.py", "[TorchStream(seed) for seed in seeds]", "[TorchStream(seeds[0])] * len(seeds)",
          PICK + "test_a_stream_a_row_is_the_row_alone"),
    Fault("SAMP-10", "generation/pick.py", "(cumulative <= target[:, None])", "(cumulative < target[:, None])",
          PICK + "test_inverse_cdf_by_hand"),
    # Configuration
    Fault("CFG-03", "generation/generate.py", "settle(model_config, generation_config, settings)",
          "settle(GenerationConfig(), generation_config, settings)", GENERATE + "test_settings_of_the_model_are_the_start"),
    Fault("CFG-04", "generation/config.py", "[dict(DEFAULTS), model.to_dict(), passed.to_dict() if passed else {},",
          "[dict(DEFAULTS), passed.to_dict() if passed else {}, model.to_dict(),", SETTINGS + "test_the_call_counts_most"),
    Fault("CFG-05", "generation/config.py", "call | checked.to_dict()]", "checked.to_dict()]",
          SETTINGS + "test_none_in_the_call_switches_off"),
    Fault("CFG-08", "generation/config.py", "if name in own or value is None", "if name not in NOT_YET or value is None",
          SETTINGS + "test_settings_that_are_refused"),
    Fault("CFG-09", "generation/config.py", "    warn_of_ignored(config, checked)\n", "",
          SETTINGS + "test_what_changes_nothing_is_said"),
    Fault("CFG-10", "generation/config.py", "            if value is None:\n                continue\n",
          '            if value is None or name == "temperature":\n                continue\n',
          SETTINGS + "test_settings_that_are_refused"),
    Fault("CFG-11", "generation/config.py", "if type(value) is not bool:", "if value not in (0, 1):",
          SETTINGS + "test_settings_that_are_refused"),
    # Output
    Fault("OUT-01", "generation/generate.py", 'finish=tuple(reason or "" for reason in step.finish)',
          'finish=tuple("length" for reason in step.finish)', LAWS + "test_ends_and_limits"),
    Fault("OUT-02", "generation/generate.py", "scores.append(step.scores)", "scores.append(step.logits)",
          LAWS + "test_steps_and_result_object_agree"),
    Fault("STREAM-01", "generation/generate.py", "        streamer.put(run.prompt.ids)\n", "        pass\n",
          LAWS + "test_streaming_is_the_result_in_pieces"),
]  # fmt: skip

# Rules that no one-line fault can break here, and why.
WITHOUT: dict[str, str] = {
    "SAMP-06": "follows from CACHE-02 and SAMP-03; breaking it means breaking one of those",
}

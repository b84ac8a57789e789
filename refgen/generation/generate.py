"""From a call to its result: the run is prepared, its steps are taken, and what they give is collected.

Axes    B prompts, n sequences a prompt, P prompt columns, V tokens.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.engines.engine import Engine
from refgen.errors import GenerationError
from refgen.generation.beam import BeamResult
from refgen.generation.call import Call, Streamer
from refgen.generation.config import GenerationConfig
from refgen.generation.loop import Step
from refgen.generation.output import GenerateOutput
from refgen.generation.prepare import Run, prepare


def generate(engine: Engine, own: GenerationConfig, call: Call) -> ndarray | GenerateOutput:
    """OUT-01. The ids `[B*n, P + new]`, or a `GenerateOutput` if the settings ask for it; `own` are the model's settings."""
    try:
        run = prepare(engine, own, call)
        check_streamer(call.streamer, run)
        with run.need.or_refused():
            return take(run, call.streamer) if run.search is None else best_of(run.search(), run)
    except BaseException:
        if call.streamer is not None and hasattr(call.streamer, "end"):
            call.streamer.end()  # another thread that waits for text need not wait longer (STREAM-05)
        raise


def steps(engine: Engine, own: GenerationConfig, call: Call) -> Iterator[Step]:
    """The steps of a call, taken one by one by the caller."""
    if call.streamer is not None:
        raise GenerationError("streamer", "steps() returns each step itself", "STREAM-01", "Use generate().")
    all_rows = {"return_dict_in_generate": True}  # a step shows every row, so none may leave (BATCH-03)
    run = prepare(engine, own, replace(call, settings={**call.settings, **all_rows}))
    if run.search is not None:
        raise GenerationError(
            f"num_beams={run.config.beams}", "beam search has no steps to give", "BEAM-12", "Use generate()."
        )
    return run.steps


def take(run: Run, streamer: Streamer | None) -> ndarray | GenerateOutput:
    """STREAM-01, OUT-01. Takes all steps of a run and puts them into one array, or into a result."""
    if streamer is not None:
        streamer.put(run.prompt.ids.copy())
    columns, scores, logits = [run.prompt.ids], [], []
    lengths, running = np.full(len(run.prompt.ids), run.prompt.width), np.ones(len(run.prompt.ids), dtype=bool)
    for step in run.steps:
        columns.append(step.tokens[:, None])
        lengths += running
        running = np.array([reason is None for reason in step.finish])
        if run.config.output_scores:
            scores.append(step.scores)
        if run.config.output_logits:
            logits.append(step.logits)
        if streamer is not None:
            streamer.put(step.tokens)
    if streamer is not None:
        streamer.end()
    sequences = np.concatenate(columns, axis=1)
    if run.cache is not None:
        run.cache.crop(min(len(run.cache), sequences.shape[1] - 1))  # a draft may have looked further (CACHE-01)
    if not run.config.return_dict_in_generate:
        return sequences
    finish = tuple(reason or "" for reason in step.finish)
    return GenerateOutput(
        sequences=sequences, lengths=lengths, finish=finish, seed=run.seed, **collected(run, scores, logits)
    )


def check_streamer(streamer: Any, run: Run) -> None:
    """STREAM-01, BEAM-12. Refuses a streamer without its two methods, and one for beam search."""
    if streamer is None:
        return
    if not (hasattr(streamer, "put") and hasattr(streamer, "end")):
        raise GenerationError(f"streamer={streamer!r}", "must have put(ids) and end()", "STREAM-01")
    if run.search is not None:
        raise GenerationError("streamer", "beam search knows its text only at the end", "BEAM-12", "Use num_beams=1.")


def best_of(result: BeamResult, run: Run) -> ndarray | GenerateOutput:
    """BEAM-09. The n best of every prompt, as wide as the longest of them."""
    n = run.config.num_return_sequences or 1
    width = int(result.lengths[:, :n].max())
    sequences = result.sequences[:, :n, :width].reshape(-1, width)
    if not run.config.return_dict_in_generate:
        return sequences
    return GenerateOutput(
        sequences=sequences,
        lengths=result.lengths[:, :n].ravel(),
        finish=tuple(reason for reasons in result.finish for reason in reasons[:n]),
        seed=run.seed,
        sequences_scores=result.sequences_scores[:, :n].ravel(),
        beam_indices=result.beam_indices[:, :n, : width - run.prompt.width].reshape(len(sequences), -1),
        **collected(run, result.scores, result.logits),
    )


def collected(run: Run, scores: list[ndarray], logits: list[ndarray]) -> dict[str, Any]:
    """OUT-02, OUT-04. What the settings ask to keep of every step, by its name in the result."""
    return {
        "scores": tuple(scores) if run.config.output_scores else None,
        "logits": tuple(logits) if run.config.output_logits else None,
        "past_key_values": run.cache,
        **run.stages.collected(),
    }

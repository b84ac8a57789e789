"""Judging: compares an answer with the right one, and gives the reason in one line.

No tolerance here is arbitrary. Ids and texts are equal or not. Logits may differ by as much as rounding explains
(oracle/noise.py). A larger difference is compared with the known faults (oracle/diagnose.py). A greedy token other than
the best is a tie only if rounding explains it after the subject's own tokens (oracle/margins.py).

Axes    B rows, T positions, V tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.conformance.judging.lab import Lab, Reference, Text
from refgen.conformance.judging.layers import located
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.planted.options import forward_change
from refgen.oracle.counterfactual import Pass
from refgen.oracle.diagnose import View, diagnose
from refgen.oracle.families import FAMILIES
from refgen.oracle.formats import FORMATS
from refgen.oracle.margins import judge_tokens
from refgen.oracle.noise import OVERALL, POSITION, ratio

# --- Ids and texts ----------------------------------------------------------------------------------------


def judge_equal(name: str, observed: Any, expected: Any) -> Finding:
    """Ids or a text."""
    if observed == expected:
        return Finding(Verdict.PASS)
    at = first_difference(observed, expected)
    return Finding(
        Verdict.FAIL,
        f"{name} {around(observed, at)}, expected {around(expected, at)} (from place {at} on)",
        {"observed": observed, "expected": expected, "place": at},
    )


def judge_ids(observed: Sequence[int], expected: Sequence[int]) -> Finding:
    """The ids of a text. Right ones with others before or after them break TOK-07."""
    found, n = judge_equal("ids", observed, expected), len(expected)
    is_inside = len(observed) > n and expected in (observed[:n], observed[len(observed) - n :])
    return replace(found, rules=("TOK-07",)) if is_inside else found


def first_difference(a: Sequence[Any], b: Sequence[Any]) -> int:
    """The first place at which two sequences differ."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def around(sequence: Sequence[Any], at: int, width: int = 12) -> str:
    """Some of a sequence from shortly before a place on."""
    start = max(0, at - 2)
    part = sequence[start : start + width]
    return f"{'… ' if start else ''}{part!r}{' …' if start + width < len(sequence) else ''}"


SIZE = 8.0  # how far the ratio of two formats' errors may be from that of their units
LOOKING_AHEAD = tuple(family for family in FAMILIES if family.looks_ahead)
PLAIN, SOME = 32.0, 16  # an error so many times rounding is recognised by so many columns
LOOKED_UP = 4  # errors that nothing explains, before the search is given up
HUGE = 1e30  # an error of a logit whose square no sum holds

# --- Logits -----------------------------------------------------------------------------------------------


def judge_logits(
    lab: Lab, model: str, request: Mapping[str, Any], logits: ndarray, exact: ndarray, scale: ndarray
) -> Finding:
    """FWD-21. `logits` and `exact` `[B T V]`, `scale` `[B T]` the expected error: at most 1.5 times it overall, 4 at a position.

    Errors of 16 bits may hide a fault that only its signature shows, so there the known faults are looked for in any case.
    A failure says where it begins.
    """
    return located(lab, model, request, compared(lab, model, request, logits, exact, scale))


def compared(
    lab: Lab, model: str, request: Mapping[str, Any], logits: ndarray, exact: ndarray, scale: ndarray
) -> Finding:
    """The verdict on logits alone."""
    _, mask = arrays_of(request)
    real = mask.astype(bool)
    if logits.shape != exact.shape:
        return Finding(Verdict.FAIL, f"logits of shape {list(logits.shape)}, expected {list(exact.shape)}")
    error = np.where(real[..., None], logits - exact, 0)
    if not np.isfinite(error).all():
        row, position, token = (int(each[0]) for each in np.nonzero(~np.isfinite(error)))
        message = f"logits are not finite, first at row {row}, position {position}, token {token}"
        return Finding(Verdict.FAIL, message, {"row": row, "position": position})
    if not (largest := float(np.abs(error).max(initial=0.0))) < HUGE:
        return Finding(
            Verdict.FAIL, f"largest logit error {largest:.3g}, which is not rounding", {"largest_error": largest}
        )
    by_position = np.sqrt((ratio(error, scale[..., None]) ** 2).mean(axis=-1))
    overall, worst = math.sqrt(float((by_position[real] ** 2).mean())), float(by_position.max())
    passes = overall <= OVERALL and worst <= POSITION
    row, position = (int(each) for each in np.unravel_index(by_position.argmax(), by_position.shape))
    facts = {
        "overall": overall,
        "worst": worst,
        "row": row,
        "position": position,
        "first_position": int((by_position[row] > POSITION).argmax()),
        "largest_error": largest,
    }
    if passes and lab.about.dtype in ("float64", "float32"):
        return Finding(Verdict.PASS, facts=facts)
    return looked_up(lab, model, request, logits, facts, passes)


def looked_up(
    lab: Lab, model: str, request: Mapping[str, Any], logits: ndarray, facts: dict[str, Any], passes: bool
) -> Finding:
    """The error among the known faults, and among the formats that are coarser than the declared one."""
    ids, mask = arrays_of(request)
    reference, dtype = lab.reference(model), lab.noise
    noise = lab.expected_error(model, ids, mask)
    exact_pass = Pass(reference.exact, ids, mask, prefill=request.get("prefill"))
    if (change := forward_change(reference.options)) is not None:
        exact_pass = change(exact_pass)
    views = [View(logits, noise)]
    diagnosis = diagnose(exact_pass, views, tuple(lab.named.values()), ())  # a subject seldom has two
    if diagnosis.named is None and not lab.repeating and (passes or lab.unexplained < LOOKED_UP):
        if facts["overall"] > PLAIN:
            less = narrowed(exact_pass, views[0], int(facts["row"]), int(facts["first_position"]) + SOME)
            diagnosis = diagnose(*less)
        if diagnosis.named is None:
            families = LOOKING_AHEAD if facts["overall"] > PLAIN else FAMILIES
            diagnosis = diagnose(exact_pass, views, families=families)
        lab.unexplained += not passes and diagnosis.named is None
    if (named := diagnosis.named) is not None:
        lab.named[named.name] = named
    if passes and named is None:
        return Finding(Verdict.PASS, facts=facts)
    message = (
        f"largest logit error {facts['largest_error']:.3g} at row {facts['row']}, position {facts['position']}: "
        f"{facts['worst']:.3g} times what rounding of {dtype} explains there, {facts['overall']:.3g} overall. "
        f"{diagnosis.sentence}"
    )
    if named is None and (coarser := rounded_like(lab, model, request, logits, facts["overall"])) is not None:
        message += f" It is as large as rounding of {coarser}: the subject declares {lab.about.dtype}."
        return Finding(Verdict.FAIL, message, facts | {"like": coarser}, ("FWD-21",))
    rules = () if named is None else named.rules
    return Finding(Verdict.FAIL, message, facts, rules, None if named is None else named.name)


def narrowed(p: Pass, view: View, row: int, end: int) -> tuple[Pass, list[View]]:
    """One row up to a column, of a pass and what was seen of it: as much as a plain error needs to be recognised."""
    rows, columns = slice(row, row + 1), slice(end)
    places = None if p.position_ids is None else p.position_ids[rows, columns]
    less = replace(
        p, input_ids=p.input_ids[rows, columns], attention_mask=p.attention_mask[rows, columns], position_ids=places
    )
    return less, [View(view.observed[rows, columns], view.noise.part(rows, columns))]


def rounded_like(lab: Lab, model: str, request: Mapping[str, Any], logits: ndarray, overall: float) -> str | None:
    """The next coarser format whose rounding explains an error that is `overall` times that of the subject's format."""
    ids, mask = arrays_of(request)
    formats = list(FORMATS)
    real = mask.astype(bool)
    for coarser in formats[formats.index(lab.noise) + 1 :]:
        expected = FORMATS[coarser].unit / FORMATS[lab.noise].unit
        if not expected / SIZE < overall < expected * SIZE:
            continue
        noise = lab.expected_error(model, ids, mask, coarser)
        off = ratio(logits - noise.exact["lm_head"], noise.scale["lm_head"][..., None])[real]
        if 1 / OVERALL <= math.sqrt(float((off**2).mean())) <= OVERALL:
            return coarser
    return None


def arrays_of(request: Mapping[str, Any]) -> tuple[ndarray, ndarray]:
    """Ids and mask `[B T]` of a forward request."""
    ids = np.asarray(request["input_ids"], dtype=np.int64)
    mask = request.get("attention_mask")
    return ids, np.ones_like(ids) if mask is None else np.asarray(mask, dtype=np.int64)


def noise_format(dtype: str) -> str:
    """The format whose rounding a subject may show. A subject in float64 is judged by float32's rounding."""
    return "float32" if dtype == "float64" else dtype


# --- Scores -----------------------------------------------------------------------------------------------

SCORE_ERROR = 32 * 2.0**-24  # of the largest score in size; processors take some ten float32 operations, each 2^-24


def judge_scores(observed: ndarray, expected: ndarray) -> Finding:
    """The same tokens removed, and the same probabilities for the rest: scores `[B V]` count up to a constant a row."""
    for row, (mine, right) in enumerate(zip(observed, expected, strict=True)):
        if (difference := score_difference(mine, right)) is not None:
            facts = {"row": row, "kept": kept(mine), "expected": kept(right)}
            return Finding(Verdict.FAIL, f"row {row}: {difference}", facts)
    return Finding(Verdict.PASS)


def score_difference(mine: ndarray, right: ndarray) -> str | None:
    """The first fault in one row of scores `[V]`."""
    if np.isnan(mine).any() or np.isposinf(mine).any():
        return "scores hold NaN or +inf"
    removed, must = np.isneginf(mine), np.isneginf(right)
    if (removed != must).any():
        token = int(np.flatnonzero(removed != must)[0])
        words = ("kept", "removed") if must[token] else ("removed", "kept")
        return f"token {token} is {words[0]}, expected {words[1]}; kept are {kept(mine)}, expected {kept(right)}"
    if must.all():
        return None
    below, expected = (np.where(must, 0, each - each[~must].max()) for each in (mine, right))
    if (off := np.abs(below - expected)).max() <= SCORE_ERROR * max(1.0, float(np.abs(right[~must]).max())):
        return None
    token = int(off.argmax())
    return f"token {token} lies {-below[token]:.6g} below the best, expected {-expected[token]:.6g}"


def kept(scores: ndarray) -> list[int]:
    """Tokens that are not removed, the first dozen."""
    return [int(each) for each in np.flatnonzero(~np.isneginf(scores))[:12]]


# --- Tokens -----------------------------------------------------------------------------------------------

PROCESSING = frozenset(  # settings under which the best token is not that of the logits alone
    {
        "sequence_bias", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "min_length", "min_new_tokens",
        "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "guidance_scale",
        "exponential_decay_length_penalty", "num_beams", "do_sample", "uniforms",
    }
)  # fmt: skip


def judge_rows(
    lab: Lab, model: str, request: Mapping[str, Any], rows: Sequence[Any], expected: Sequence[Any], ties: bool = True
) -> Finding:
    """The rows of `generate`, greedy or with given chance. A row without ids is compared by its text.

    Without `ties` no token may be another, as in probes, where no rounding can change one.
    """
    explained: list[Finding] = []
    n = len(rows) // len(request["input_ids"])
    for number, (row, right) in enumerate(zip(rows, expected, strict=True)):
        if "new_ids" not in row:
            text = right.get("text") or lab.reference(model).tokenizer.decode(
                right["new_ids"], skip_special_tokens=True
            )
            found = judge_equal(f"row {number}: text", row["text"], text)
        else:
            found = judge_row(lab, model, request, number, number // n, row, right, ties)
            if found.rules in (("STOP-02",), ("STOP-03",)) and goes_on_with(row, right, expected):
                found = replace(found, rules=("STOP-06", *found.rules))
        if found.verdict is Verdict.TIE:
            explained.append(found)
        elif not found.verdict.good:
            rules = of_the_batch(rows, expected, n)
            return replace(found, rules=(*rules, *found.rules)) if rules else found
    return explained[0] if explained else Finding(Verdict.PASS)


def of_the_batch(rows: Sequence[Any], expected: Sequence[Any], n: int) -> tuple[str, ...]:
    """The rules that rows break together, `n` to a prompt: right ones in another order, or one for all."""
    mine, right = ([tuple(row.get("new_ids", ())) for row in each] for each in (rows, expected))
    is_mixed = mine != right and sorted(mine) == sorted(right)
    is_one_for_all = len(set(mine)) == 1 < len(set(right)) and mine[0] in right
    return ("BATCH-01" if n == 1 else "SAMP-07",) if is_mixed or is_one_for_all else ()


def judge_row(
    lab: Lab,
    model: str,
    request: Mapping[str, Any],
    number: int,
    prompt: int,
    row: Mapping[str, Any],
    right: Mapping[str, Any],
    ties: bool,
) -> Finding:
    """One row: its tokens, then why it ended."""
    observed, expected = row["new_ids"], right["new_ids"]
    if not PROCESSING & {name for name, value in request.items() if value}:
        remember(lab, model, request, prompt, observed, expected)
    if observed == expected:
        finish = row.get("finish")
        if finish is not None and right.get("finish") is not None and finish != right["finish"]:
            message = f"row {number}: finish {finish!r}, expected {right['finish']!r}"
            return Finding(Verdict.FAIL, message, {"row": number}, ("STOP-01",))
        for name in ("text", "chunks"):
            if row.get(name) is not None and right.get(name) is not None:
                found = judge_equal(f"row {number}: {name}", "".join(row[name]), "".join(right[name]))
                if not found.verdict.good:
                    return found
        return Finding(Verdict.PASS)
    step = first_difference(observed, expected)
    message = f"row {number}, step {step}: new_ids {around(observed, step)}, expected {around(expected, step)}"
    facts = {"row": number, "step": step, "observed": observed, "expected": expected}
    if step == min(len(observed), len(expected)):
        return Finding(Verdict.FAIL, message, facts, (end_rule(lab, model, request, prompt, row, right),))
    if not ties or any(request.get(name) for name in PROCESSING):
        return Finding(Verdict.FAIL, message, facts)
    return judge_greedy(lab, model, request, prompt, observed, message, facts)


def remember(
    lab: Lab, model: str, request: Mapping[str, Any], prompt: int, observed: list[int], expected: list[int]
) -> None:
    """Keeps a greedy row up to where the shorter one ends, for judging/texts.py."""
    shorter = min(len(observed), len(expected))
    if not shorter or lab.repeating:
        return
    ids, masks = request["input_ids"][prompt], request.get("attention_mask")
    mask = masks[prompt] if masks else [1] * len(ids)
    new_ids = tuple(observed[:shorter])
    lab.texts.append(Text(lab.check, model, tuple(ids), tuple(mask), new_ids, new_ids == tuple(expected[:shorter])))


def goes_on_with(row: Mapping[str, Any], right: Mapping[str, Any], expected: Sequence[Any]) -> bool:
    """Whether a row goes on after its end, no longer than the longest of its batch."""
    return len(right["new_ids"]) < len(row["new_ids"]) <= max(len(each["new_ids"]) for each in expected)


def end_rule(
    lab: Lab, model: str, request: Mapping[str, Any], prompt: int, row: Mapping[str, Any], right: Mapping[str, Any]
) -> str:
    """The rule that a row breaks which is right as far as it goes, or goes on: that of the end it should have, or says it has."""
    early = len(row["new_ids"]) < len(right["new_ids"])
    if early and any(stop in prompt_text(lab, model, request, prompt) for stop in stops_of(request)):
        return "SSTR-03"
    finish = row.get("finish") if early and row.get("finish") in ("eos", "stop_string") else right.get("finish")
    ends = "STOP-03" if isinstance(request.get("eos_token_id"), list) else "STOP-02"
    return {"eos": ends, "stop_string": "SSTR-01", "context": "LEN-04"}.get(str(finish), "LEN-01")


def stops_of(request: Mapping[str, Any]) -> list[str]:
    """SSTR-01. The stop strings of a request."""
    own = request.get("stop_strings") or []
    return [own] if isinstance(own, str) else list(own)


def prompt_text(lab: Lab, model: str, request: Mapping[str, Any], prompt: int) -> str:
    """The text of one prompt."""
    return lab.reference(model).text_of(request["input_ids"][prompt])


def judge_greedy(
    lab: Lab,
    model: str,
    request: Mapping[str, Any],
    prompt: int,
    observed: list[int],
    message: str,
    facts: dict[str, Any],
) -> Finding:
    """Other greedy tokens than refgen's: whether rounding explains them, and whether they end where they must."""
    reference, ids = lab.reference(model), request["input_ids"][prompt]
    mask = request.get("attention_mask")
    prompt_ids = [token for token, real in zip(ids, mask[prompt] if mask else [1] * len(ids), strict=True) if real]
    ends = end_ids(reference, request)
    reference.fits(prompt_ids, observed)
    judgement = judge_tokens(reference.gpt2, prompt_ids, observed, lab.noise, ends)
    behind = {flip.step: flip.sigmas for flip in judgement.flips}
    facts = facts | {"margins": [behind.get(step, 0.0) for step in range(len(judgement.chances))]}
    if judgement.verdict == "FAIL":
        return Finding(Verdict.FAIL, f"{message}. {judgement.sentence}", facts)
    limit = request.get("max_new_tokens")
    if limit is not None and not (len(observed) == limit or (observed and observed[-1] in ends)):
        return Finding(Verdict.FAIL, f"{message}; it ends neither with an end token nor at the limit", facts)
    return Finding(Verdict.TIE, judgement.sentence, facts)


def end_ids(reference: Reference, request: Mapping[str, Any]) -> tuple[int, ...]:
    """STOP-02. The end tokens that the request means."""
    own = request.get("eos_token_id", reference.model.generation_config.eos_token_id)
    several = own if isinstance(own, list | tuple) else [own]
    return tuple(each for each in several if each is not None)

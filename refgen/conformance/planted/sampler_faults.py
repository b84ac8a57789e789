"""Known faults of samplers: how each real mistake changes the law that tokens are drawn by. Verdicts and tests share
this list.

A sampler is a chain of named processors, made by refgen's own settings (PROC-01). A fault is a function from that chain
to the faulty chain: a step is missing, different, or in another place. So no processor is copied, and a fault takes a
line or two. Where stacks differ on purpose, an option is such a function too. A fault that is somebody's option names
it. Most were found in real implementations. Faults of the random numbers are at the end.

Axes    B rows, S columns so far, V tokens, T steps.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from refgen.generation.config import GenerationConfig
from refgen.generation.processors import Processor
from refgen.generation.processors.order import processors
from refgen.generation.processors.penalties import repetition_penalty
from refgen.generation.processors.sampling import top_k, top_p
from refgen.generation.prompt import Prompt
from refgen.generation.settle import settle
from refgen.model import softmax

Settings = Mapping[str, Any]  # fields of GenerationConfig
Chain = list[tuple[str, Processor]]  # in order, by the names of their functions
Plant = Callable[[Chain, Settings], Chain]


def right(settings: Settings, prompt: Prompt) -> Chain:
    """The chain that `settings` ask for when sampling; with temperature 0 all that is left is the best token (TEMP-02)."""
    config = settle(GenerationConfig(), None, {"do_sample": True, **settings})
    limit = prompt.width + (config.max_new_tokens or 20)
    chain = [(getattr(each, "func", each).__name__, each) for each in processors(config, prompt, limit)]
    return chain if config.samples else [*chain, ("draw", best_only)]


def run(chain: Chain, ids: ndarray, logits: ndarray) -> ndarray:
    """The scores `[B V]` that a chain makes of logits."""
    scores = logits
    for _, processor in chain:
        scores = processor(ids, scores)
    return scores


@dataclass(frozen=True)
class SamplerFault:
    """`plant` puts it into a chain. `rules` are those of SPEC.md that it breaks. Without all of `settings` it changes
    nothing.

    `choice` is the option of SPEC.md's *Stacks* that makes the fault right, if a subject declares it: name=option.
    """

    name: str
    sentence: str
    rules: tuple[str, ...]
    plant: Plant
    settings: tuple[str, ...] = ()
    choice: str = ""

    def scores(self, settings: Settings, ids: ndarray, logits: ndarray, width: int | None = None) -> ndarray:
        """What a sampler with this fault makes of `logits` `[B V]`, of whose `ids` `[B S]` the first `width` are the prompt."""
        before = ids[:, :width]
        return run(self.plant(right(settings, Prompt(before, np.ones_like(before))), settings), ids, logits)


# --- Ways to change a chain -------------------------------------------------------------------------------


def without(*names: str) -> Plant:
    """Steps left out."""
    return lambda chain, settings: [step for step in chain if step[0] not in names]


def instead(name: str, function: Callable[..., ndarray], **fixed: Any) -> Plant:
    """A changed step, with the same keywords except those that are `fixed`."""

    def plant(chain: Chain, settings: Settings) -> Chain:
        return [
            (each, partial(function, **{**getattr(old, "keywords", {}), **fixed}) if each == name else old)
            for each, old in chain
        ]

    return plant


def with_keyword(name: str, keyword: str, change: Callable[[Any], Any]) -> Plant:
    """A step with another value."""

    def changed(old: Any) -> Processor:
        return partial(old.func, **{**old.keywords, keyword: change(old.keywords[keyword])})

    return lambda chain, settings: [(each, changed(old) if each == name else old) for each, old in chain]


def ordered(*names: str) -> Plant:
    """Steps of these names in this order, in the places that such steps have; others stay where they are."""

    def plant(chain: Chain, settings: Settings) -> Chain:
        moved = iter(sorted((step for step in chain if step[0] in names), key=lambda step: names.index(step[0])))
        return [next(moved) if step[0] in names else step for step in chain]

    return plant


def last(processor: Processor) -> Plant:
    """One step more, at the end."""
    return lambda chain, settings: [*chain, ("draw", processor)]


def in_front(name: str, processor: Processor) -> Plant:
    """One step more, before all."""
    return lambda chain, settings: [(name, processor), *chain]


def all_of(*plants: Plant) -> Plant:
    """Several changes, one after the other."""

    def plant(chain: Chain, settings: Settings) -> Chain:
        for each in plants:
            chain = each(chain, settings)
        return chain

    return plant


def where(condition: Callable[[Settings], bool], plant: Plant) -> Plant:
    """A change only under such settings."""
    return lambda chain, settings: plant(chain, settings) if condition(settings) else chain


# --- Steps done otherwise ---------------------------------------------------------------------------------


def multiplied(ids: ndarray, scores: ndarray, *, value: float) -> ndarray:
    """Times the temperature."""
    return scores * np.float32(value)


def exactly_k(ids: ndarray, scores: ndarray, *, k: int) -> ndarray:
    """The k best; of equal ones those of lowest id."""
    return first_of(np.argsort(-scores, axis=1, kind="stable"), scores, np.full(len(scores), k))


def filled_with_zero(ids: ndarray, scores: ndarray, *, k: int) -> ndarray:
    """Removed tokens score 0."""
    return np.where(np.isneginf(top_k(ids, scores, k=k)), 0.0, scores)


def first_of(order: ndarray, scores: ndarray, count: ndarray) -> ndarray:
    """Of every row the first `count` `[B]` tokens in its `order` `[B V]`."""
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, order, np.arange(scores.shape[1]) < count[:, None], axis=1)
    return np.where(kept, scores, -np.inf)


def mass_before(scores: ndarray) -> tuple[ndarray, ndarray]:
    """The tokens best first, and the probability of those before each, `[B V]` both."""
    order = np.argsort(-scores, axis=1, kind="stable")
    probabilities = softmax(np.take_along_axis(scores, order, axis=1))
    return order, probabilities.cumsum(axis=1) - probabilities


def crossing_dropped(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """A token stays if the mass up to and with it is at most p."""
    order, before = mass_before(scores)
    within = (before[:, 1:] <= p + 1e-6).sum(axis=1)  # how many tokens are passed before p is
    return first_of(order, scores, np.maximum(within, keep))


def one_more(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """The token after the crossing one stays too."""
    order, _ = mass_before(scores)
    return first_of(order, scores, np.isfinite(top_p(ids, scores, p=p, keep=keep)).sum(axis=1) + 1)


def reached_is_not_enough(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """A token stays if the mass before it is at most p."""
    order, before = mass_before(scores)
    return first_of(order, scores, np.maximum((before <= p + 1e-6).sum(axis=1), keep))


def ties_stay(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """All that score as much as the worst that stays."""
    kept = top_p(ids, scores, p=p, keep=keep)
    worst = np.where(np.isfinite(kept), kept, np.inf).min(axis=1, keepdims=True)
    return np.where(scores < worst, -np.inf, scores)


def worst_first(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """The least likely tokens, until their mass is p."""
    order, before = mass_before(scores)
    behind = 1 - before - softmax(np.take_along_axis(scores, order, axis=1))
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, order, behind < p, axis=1)
    return np.where(kept, scores, -np.inf)


def not_scattered(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """The mask of the sorted scores, on scores that are not sorted."""
    count = np.isfinite(top_p(ids, scores, p=p, keep=keep)).sum(axis=1)
    return np.where(np.arange(scores.shape[1]) < count[:, None], scores, -np.inf)


def min_p_of_scores(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """Scores, not probabilities, against a part of the best one."""
    best = scores.max(axis=1, keepdims=True)
    return np.where((scores < p * best) & (scores < best), -np.inf, scores)


def min_p_of_one(ids: ndarray, scores: ndarray, *, p: float, keep: int = 1) -> ndarray:
    """Probabilities below p itself, the best apart."""
    low = (softmax(scores) < p) & (scores < scores.max(axis=1, keepdims=True))
    return np.where(low, -np.inf, scores)


def always_divided(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """Negative scores are divided too, which makes them likelier."""
    return np.where(counts(ids, scores) > 0, scores / penalty, scores)


def once_an_occurrence(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """As often as the token stands there."""
    powers = penalty ** counts(ids, scores)
    return np.where(scores < 0, scores * powers, scores / powers)


def of_new_tokens(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """Without those of the prompt."""
    new = ids[:, prompt_mask.shape[1] :]
    return repetition_penalty(new, scores, penalty=penalty, prompt_mask=np.ones_like(new)) if new.size else scores


def of_the_prompt(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """Without new ones."""
    prompt = ids[:, : prompt_mask.shape[1]]
    return repetition_penalty(prompt, scores, penalty=penalty, prompt_mask=prompt_mask)


def of_the_last_64(ids: ndarray, scores: ndarray, *, penalty: float, prompt_mask: ndarray) -> ndarray:
    """Without what stands farther back."""
    mask = np.column_stack([prompt_mask, np.ones((len(ids), ids.shape[1] - prompt_mask.shape[1]), int)])[:, -64:]
    return repetition_penalty(ids[:, -64:], scores, penalty=penalty, prompt_mask=mask)


def counts(ids: ndarray, scores: ndarray) -> ndarray:
    """How often each token stands in its row, `[B V]`."""
    return np.stack([np.bincount(row, minlength=scores.shape[1]) for row in ids])


def best_only(ids: ndarray, scores: ndarray) -> ndarray:
    """The best token, and no other."""
    return np.where(np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None], scores, -np.inf)


def all_alike(ids: ndarray, scores: ndarray) -> ndarray:
    """The tokens that are left are equally likely."""
    return np.where(np.isneginf(scores), -np.inf, 0.0)


def ends_leak(ids: ndarray, scores: ndarray) -> ndarray:
    """The first and the last id are drawn once in a thousand times each, removed or not."""
    probabilities = softmax(scores) * 0.998
    probabilities[:, [0, -1]] += 0.001
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def softmax_of_softmax(ids: ndarray, scores: ndarray) -> ndarray:
    """Probabilities taken for scores."""
    return softmax(scores)


# --- The catalogue ----------------------------------------------------------------------------------------

CUTS = ("top_k", "top_p", "min_p")
SHAPES = ("temperature", "top_h", *CUTS, "typical_p", "epsilon_cutoff", "eta_cutoff")
LLAMA_CPP = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


def silent_of(name: str) -> Callable[[Settings], bool]:
    """Whether a setting is not in the request."""
    return lambda settings: name not in settings


def zero(name: str) -> Callable[[Settings], bool]:
    """Whether a setting is 0."""
    return lambda settings: settings.get(name) == 0


FAULTS = (
    # Temperature
    SamplerFault("temperature-ignored", "temperature has no effect", ("TEMP-01",),
                 without("temperature"), ("temperature",)),
    SamplerFault("temperature-twice", "scores are divided by the temperature twice", ("TEMP-01",),
                 with_keyword("temperature", "value", lambda value: value * value), ("temperature",)),
    SamplerFault("temperature-multiplied", "scores are multiplied by the temperature", ("TEMP-01",),
                 instead("temperature", multiplied), ("temperature",)),
    SamplerFault("temperature-3-percent", "the temperature is 3 % too high", ("TEMP-01",),
                 with_keyword("temperature", "value", lambda value: value * 1.03), ("temperature",)),
    SamplerFault("temperature-10-percent", "the temperature is 10 % too high", ("TEMP-01",),
                 with_keyword("temperature", "value", lambda value: value * 1.1), ("temperature",)),
    SamplerFault("temperature-last", "temperature comes after top_p", ("TEMP-01", "TOPP-05", "PROC-01"),
                 ordered(*CUTS, "temperature"), ("temperature", "top_p"),
                 choice="order=penalties_top_k_typical_p_top_p_min_p_temperature"),
    SamplerFault("temperature-zero-is-off", "temperature 0 is taken for 1", ("TEMP-02",),
                 where(zero("temperature"), without("draw")), ("temperature",)),
    # Top-k
    SamplerFault("top-k-ignored", "top_k has no effect", ("TOPK-01",), without("top_k"), ("top_k",)),
    SamplerFault("top-k-one-more", "one token too many stays", ("TOPK-01",),
                 with_keyword("top_k", "k", lambda k: k + 1), ("top_k",)),
    SamplerFault("top-k-one-less", "one token too few stays", ("TOPK-01",),
                 with_keyword("top_k", "k", lambda k: max(1, k - 1)), ("top_k",)),
    SamplerFault("top-k-ties-cut", "of the tokens that tie with the k-th some are removed", ("TOPK-01", "TOPK-03"),
                 instead("top_k", exactly_k), ("top_k",), choice="top_k_ties=exactly_k"),
    SamplerFault("top-k-filled-with-zero", "removed tokens score 0, which does not remove them", ("TOPK-01",),
                 instead("top_k", filled_with_zero), ("top_k",)),
    SamplerFault("top-k-zero-keeps-one", "top_k=0 is taken for 1", ("TOPK-02",),
                 where(zero("top_k"), in_front("top_k", partial(top_k, k=1))), ("top_k",)),
    SamplerFault("top-k-hidden-50", "50 tokens stay although top_k=0 asks for all", ("TOPK-02", "PROC-05"),
                 where(zero("top_k"), in_front("top_k", partial(top_k, k=50))), ("top_k",)),
    # Top-p
    SamplerFault("top-p-ignored", "top_p has no effect", ("TOPP-01",), without("top_p"), ("top_p",)),
    SamplerFault("top-p-crossing-dropped", "the token that crosses top_p is removed", ("TOPP-01",),
                 instead("top_p", crossing_dropped), ("top_p",), choice="top_p_boundary=exclude"),
    SamplerFault("top-p-one-more", "the token after the one that crosses top_p stays", ("TOPP-01",),
                 instead("top_p", one_more), ("top_p",)),
    SamplerFault("top-p-reached-is-not-enough", "mass that is exactly top_p asks for one token more", ("TOPP-01",),
                 instead("top_p", reached_is_not_enough), ("top_p",), choice="top_p_reached=one_more"),
    SamplerFault("top-p-ties-stay", "tokens that tie with the last one stay", ("TOPP-03",),
                 instead("top_p", ties_stay), ("top_p",), choice="top_p_ties=all_stay"),
    SamplerFault("top-p-worst-first", "the mass is summed up from the least likely token", ("TOPP-01",),
                 instead("top_p", worst_first), ("top_p",)),
    SamplerFault("top-p-not-scattered", "the tokens to remove are found in sorted order and removed in unsorted order",
                 ("TOPP-01",), instead("top_p", not_scattered), ("top_p",)),
    SamplerFault("top-p-before-top-k", "top_p looks at the mass of all tokens, not of those that top_k left",
                 ("TOPP-05", "PROC-01"), ordered("top_p", "top_k"), ("top_k", "top_p"),
                 choice="order=temperature_top_p_top_k"),
    # Min-p
    SamplerFault("min-p-ignored", "min_p has no effect", ("MINP-01",), without("min_p"), ("min_p",)),
    SamplerFault("min-p-before-temperature", "min_p looks at probabilities before temperature", ("MINP-01", "PROC-01"),
                 ordered("min_p", "temperature"), ("temperature", "min_p")),
    SamplerFault("min-p-of-scores", "min_p compares scores, not probabilities", ("MINP-01",),
                 instead("min_p", min_p_of_scores), ("min_p",)),
    SamplerFault("min-p-of-one", "min_p is a probability itself, not a part of the best one's", ("MINP-01",),
                 instead("min_p", min_p_of_one), ("min_p",)),
    SamplerFault("min-p-before-top-p", "min_p comes before top_k and top_p", ("PROC-01",),
                 ordered("min_p", "top_k", "top_p"), ("top_p", "min_p"),
                 choice="order=penalties_temperature_min_p_top_k_top_p"),
    # Penalty and bias
    SamplerFault("penalty-ignored", "repetition_penalty has no effect", ("REP-01",),
                 without("repetition_penalty"), ("repetition_penalty",)),
    SamplerFault("penalty-divides-negatives", "negative scores are divided by the penalty too", ("REP-01",),
                 instead("repetition_penalty", always_divided), ("repetition_penalty",)),
    SamplerFault("penalty-an-occurrence", "the penalty is applied once for every occurrence", ("REP-01",),
                 instead("repetition_penalty", once_an_occurrence), ("repetition_penalty",)),
    SamplerFault("penalty-of-new-tokens", "the penalty does not look at the prompt", ("REP-01",),
                 instead("repetition_penalty", of_new_tokens), ("repetition_penalty",)),
    SamplerFault("penalty-of-the-prompt", "the penalty does not look at new tokens", ("REP-01",),
                 instead("repetition_penalty", of_the_prompt), ("repetition_penalty",)),
    SamplerFault("bias-ignored", "sequence_bias has no effect", ("BIAS-01",), without("sequence_bias"), ("sequence_bias",)),
    SamplerFault("bias-after-temperature", "sequence_bias is added after temperature", ("BIAS-01", "PROC-01"),
                 ordered("temperature", "sequence_bias"), ("sequence_bias", "temperature")),
    SamplerFault("bias-after-cuts", "sequence_bias is added to what top_k and the other cuts left", ("BIAS-01", "PROC-01"),
                 ordered(*SHAPES, "sequence_bias"), ("sequence_bias",)),
    # What a silent request means
    SamplerFault("silent-is-plain", "a request without top_k draws from all tokens", ("PROC-05", "TOPK-02"),
                 where(silent_of("top_k"), without("top_k")), choice="plain_sampling=nothing"),
    # The draw itself
    SamplerFault("settings-ignored", "no setting has an effect", ("PROC-01",), lambda chain, settings: []),
    SamplerFault("greedy", "the best token is taken, nothing is drawn", ("SAMP-01",), last(best_only)),
    SamplerFault("uniform", "all tokens that are left are equally likely", ("SAMP-01",), last(all_alike)),
    SamplerFault("softmax-twice", "probabilities are taken for scores", ("SAMP-01",), last(softmax_of_softmax)),
    SamplerFault("zero-probability", "a removed token is drawn now and then, the first or the last", ("SAMP-01", "SAMP-02"),
                 last(ends_leak)),
)  # fmt: skip


def find_fault(name: str) -> SamplerFault:
    """The fault of that name."""
    return next(fault for fault in FAULTS if fault.name == name)


# --- Options of Stacks ------------------------------------------------------------------------------------

PLANTS: Mapping[str, Plant] = {
    **{fault.choice: fault.plant for fault in FAULTS if fault.choice and not fault.choice.startswith("order=")},
    "penalty_scope=last_64": instead("repetition_penalty", of_the_last_64),
}
SILENT: Mapping[str, Settings] = {  # what a subject means by a request that says nothing
    "plain_sampling=nothing": {"top_k": 0},
    "plain_sampling=temperature_0.8_top_k_40_top_p_0.95_min_p_0.05": LLAMA_CPP,
    "default_top_k=none": {"top_k": 0},
    "default_top_k=40": {"top_k": 40},
    "default_min_p=0.05": {"min_p": 0.05},
}
ANY_OF_EQUALS = {
    "top_k_ties=exactly_k": "top_k",
    "top_p_ties=any": "top_p",
}  # which of equal tokens stay is nobody's rule


def conventions(choices: Mapping[str, str]) -> Plant:
    """The change to the chain that a subject's declared options come to, by SPEC.md's names."""
    options = [f"{name}={option}" for name, option in choices.items()]
    plants = [PLANTS[option] for option in options if option in PLANTS and option != "plain_sampling=nothing"]
    if "order" in choices:
        plants.append(ordered(*re.findall("temperature|top_k|typical_p|top_p|min_p", choices["order"])))
    return all_of(*plants)


def meant(settings: Settings, choices: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a request together with what the subject declares to mean where it is silent."""
    silent: dict[str, Any] = {}
    for name, option in choices.items():
        silent |= SILENT.get(f"{name}={option}", {})
    together = silent | dict(settings)
    if choices.get("tiny_temperature") == "raised_to_0.01" and 0 < (together.get("temperature") or 0) < 0.01:
        together["temperature"] = 0.01
    return together


def ties_are_free(settings: Settings, choices: Mapping[str, str]) -> bool:
    """Whether the subject may keep any of equal tokens under these settings."""
    return any(f"{name}={option}" in ANY_OF_EQUALS and ANY_OF_EQUALS[f"{name}={option}"] in settings
               for name, option in choices.items())  # fmt: skip


# --- Faults of the random numbers -------------------------------------------------------------------------


@dataclass(frozen=True)
class NumbersFault:
    """`numbers(seed, request, B, T)` are the uniforms `[B T]` that draw the tokens of the n-th request with this seed."""

    name: str
    sentence: str
    rules: tuple[str, ...]
    numbers: Callable[[int, int, int, int], ndarray]


def independent(seed: int, request: int, B: int, T: int) -> ndarray:
    """The right behaviour: every token has its own number, and a seed always gives the same numbers."""
    return np.random.default_rng(seed).random((B, T))


NUMBERS = (
    NumbersFault("one-number-for-all-steps", "the generator is made anew for every token", ("SAMP-03", "SAMP-04"),
                 lambda seed, request, B, T: np.random.default_rng(seed).random((B, 1)).repeat(T, axis=1)),
    NumbersFault("one-number-for-all-rows", "rows share their random numbers", ("SAMP-04", "SAMP-07"),
                 lambda seed, request, B, T: np.random.default_rng(seed).random((1, T)).repeat(B, axis=0)),
    NumbersFault("seed-without-effect", "every seed gives the same tokens", ("SAMP-05",),
                 lambda seed, request, B, T: np.random.default_rng(0).random((B, T))),
    NumbersFault("seed-ignored", "the same seed gives other tokens the next time", ("SAMP-05",),
                 lambda seed, request, B, T: np.random.default_rng([seed, request]).random((B, T))),
)  # fmt: skip

"""Probes that look up: an MLP as a table from the last token to the next. For sampling with memory, penalties and
beams.

There is one hidden unit for each token. With ballast, LayerNorm multiplies by 2 or 4, so a unit gets 8 for its own
token and -8 for every other. GELU keeps the 8 and turns -8 into zero. The unit's row of c_proj holds the wanted logits,
divided by 8. The same row also removes the token's own entry from its field.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from refgen.conformance.questions.cases import Case
from refgen.conformance.questions.probes.probe import (
    LETTERS,
    Probe,
    balance,
    biases_of,
    blank,
    configured,
    ids,
    parts_of,
    says,
    special,
    words,
)

SHARP = 8.0


def looked_up(tensors: dict[str, np.ndarray], layer: int, unit: int, column: int, multiplied: float) -> np.ndarray:
    """Makes one hidden unit 8 where the stream has a 1 in that column, else 0; returns its row `[C]` of c_proj."""
    tensors[f"h.{layer}.mlp.c_fc.weight"][column, unit] = 16 / multiplied
    tensors[f"h.{layer}.mlp.c_fc.bias"][unit] = -8
    return tensors[f"h.{layer}.mlp.c_proj.weight"][unit]


# --- A table ----------------------------------------------------------------------------------------------

LOGITS = (
    4,
    2,
    1,
    -1,
    -1,
    -2,
    -2,
)  # with the ballast's -1 their sum is 0 and their squares make 32: ln_f changes nothing
NEXT = {  # the likeliest three after each letter, and the four that are less likely than the rest
    "A": "BDKCEFG", "B": "CEFDGHI", "C": "AFGEHIJ", "D": "ACGFIJK", "E": "FAHBCDG", "F": "GBIACDE",
    "G": "HCJDEFK", "H": "ADKBCEF", "I": "JEACDFG", "J": "KFBACDE", "K": "AGCBDEF",
}  # fmt: skip


def rows_of(name: str, sentence: str, **entries: Any) -> Probe:
    """The network, without questions."""
    V, N, C = 12, 64, 32
    config = configured(V, N, C, **entries)
    tensors = blank(config)
    token, ballast = np.split(np.arange(C), [V])
    tensors["wte.weight"][:, token] = np.eye(V)
    balance(tensors["wpe.weight"], ballast, 1 / 16)
    rows = np.zeros((V, V))
    for letter, after in NEXT.items():
        rows[ids(letter)[0], ids(after)] = LOGITS
    rows[V - 1, ids(NEXT["A"])] = LOGITS  # after the end as after A
    for t in range(V):
        looked_up(tensors, 0, t, token[t], 4)[token] = (rows[t] - np.eye(V)[t]) / 8
    tensors["ln_f.weight"][ballast] = 0
    letters = words(LETTERS[: V - 1])
    facts = {"logits_after": rows.tolist()}
    rules = ("FWD-14", "FWD-16", "SAMP-01")
    return Probe(name, sentence, rules, config, tensors, letters, special(config), facts=facts)


def table() -> Probe:
    """The next token's logits are a row of a table: 4, 2, 1, five times 0, twice -1, twice -2."""
    probe = rows_of("table", "A letter by the letter before it.")
    return probe.asked(
        says("greedy", ["FWD-14"], "the MLP is wrong", [ids("A")], [ids("BCABCAB")],
             kills=("last-layer-missing",)),
        says("padded", ["PAD-05", "BATCH-01"], "rows meet", [ids("A"), ids("DIJ"), ids("CE")],
             [ids("BCABC"), ids("KABCA"), ids("FGHAB")]),
        says("loop-broken-3", ["NGRAM-01"], "three tokens come again", [ids("A")], [ids("BCABEF")],
             no_repeat_ngram_size=3),
        says("loop-broken-2", ["NGRAM-01"], "a pair of tokens comes again", [ids("A")], [ids("BCADAKA")],
             no_repeat_ngram_size=2),
        says("only-the-row", ["NGRAM-02", "BATCH-01"], "another row's pairs, or padding, are forbidden",
             [ids("ABCA"), ids("A"), ids("CA")], [ids("DAKA"), ids("BCAD"), ids("BCFG")], no_repeat_ngram_size=2,
             bug="EDGE_CASE"),
        says("penalty", ["REP-01"], "earlier tokens are produced again", [ids("A")], [ids("BCFGHD")], repetition_penalty=4.0),
        says("bad-word", ["BAD-01"], "a forbidden pair comes", [ids("A")], [ids("BEFGHA")], bad_words_ids=[ids("BC")]),
    )  # fmt: skip


def narrow() -> Probe:
    """The same with an MLP of 12 units instead of 4 times n_embd."""
    probe = rows_of("narrow", "The same table in an MLP of 12 units: n_inner is not four times n_embd.", n_inner=12)
    return probe.asked(
        says("greedy", ["FWD-14"], "the configuration's n_inner is ignored", [ids("A"), ids("GH")],
             [ids("BCABCAB"), ids("ABCABCA")], kills=("last-layer-missing",)),
    )  # fmt: skip


# --- Beams ------------------------------------------------------------------------------------------------

WORDS = "STABCDEabxy"
AFTER: Mapping[str, Mapping[str, float]] = {
    "S": {"A": 5, "B": 4.5},
    "T": {"D": 6},
    "A": {"C": 3, "D": 2, "E": 2, "x": 2, "y": 2, "S": 2, "T": 2, "a": -4},  # what A remembers of itself is taken out
    "B": {"D": 6, "b": -4},
    "C": {"y": 1},
    "D": {"y": 1},
    "E": {"y": 1},
    "a": {".": 7},
    "b": {".": 7},
    "x": {"y": 1},
    "y": {".": 7},
    ".": {".": 7},
}


def beam() -> Probe:
    """The best text is SBDb, though A is likelier after S. A search with two beams finds it, if the cache follows its
    beam.

    An MLP holds the table AFTER. Attention looks at place 1, the first new token, and remembers whether it was A or B.
    From there on the logit of a or b is 4 higher. After two steps the better beam has come from the worse one, so the
    beams have swapped places: who does not swap their caches remembers A, and says a.
    """
    V, N, C = len(WORDS) + 1, 16, 32
    config = configured(V, N, C)
    tensors = blank(config)
    token, place, memory, ballast = np.split(np.arange(C), [V, V + 2, V + 5])
    nothing, saw_a, saw_b = memory
    tensors["wte.weight"][:, token] = np.eye(V)
    tensors["wpe.weight"][:, place[0]] = 1
    tensors["wpe.weight"][:, nothing] = 1
    balance(tensors["wpe.weight"], ballast, 1 / 4)
    tensors["wpe.weight"][1, place] = 0, 1
    _, k, v, proj = parts_of(tensors, 0)
    biases_of(tensors, 0)[0][0] = 2 * SHARP
    k[place[1], 0] = SHARP
    letters = WORDS + "."
    for letter, seen in (("A", saw_a), ("B", saw_b)):  # the 1 moves from `nothing` to what was seen: sums stay
        v[letters.index(letter), seen] = 1
        proj[seen, seen], proj[seen, nothing] = 1 / 2, -1 / 2
    for t, letter in enumerate(letters):
        row = looked_up(tensors, 0, t, token[t], 2)
        row[token[t]] = -1 / 8
        for following, logit in AFTER[letter].items():
            row[token[letters.index(following)]] += logit / 8
    for unit, (seen, letter) in enumerate(((saw_a, "a"), (saw_b, "b")), start=V):
        looked_up(tensors, 0, unit, seen, 2)[token[letters.index(letter)]] = 4 / 8
    tensors["ln_f.weight"][:] = 0
    tensors["ln_f.weight"][token] = 1
    probe = Probe("beam", "SBDb with beams, SACa without.", ("BEAM-04", "BEAM-13", "CACHE-01"), config, tensors,
                  words(WORDS), special(config))  # fmt: skip
    best, greedy, other = (ids(text, letters) for text in ("BDb.", "ACa.", "Dy."))

    def beams(name: str, why: str, rows: list[list[int]], prompts: str = "S", **more: Any) -> Case:
        """A beam search."""
        return says(name, ["BEAM-02", "BEAM-13", "CACHE-01"], why, [ids(each, letters) for each in prompts], rows, "eos",
                    **{"num_beams": 2, "max_new_tokens": 6} | more)  # fmt: skip

    return probe.asked(
        says("greedy", ["FWD-09", "FWD-14"], "the forward pass is wrong", [ids("S", letters)], [greedy[:-1]],
             kills=("cached-mask-top-left",)),
        beams("two", "the cache does not follow its beam, or the better text is not found", [best]),
        beams("three", "the cache does not follow its beam", [best], num_beams=3),
        beams("early", "the search ends too early", [best], early_stopping=True),
        beams("short-is-no-better", "a text is chosen for its length", [best], length_penalty=0.0),
        beams("batch", "beams of several prompts are mixed up", [best, other, best], "STS"),
        beams("two-texts", "the second best text is the first again", [best, greedy], num_return_sequences=2),
    )  # fmt: skip

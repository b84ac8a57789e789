"""Probes without a working layer: the answer stands in the embeddings. Dice say the same logits at every step, a clock a script.

Whatever their layers compute is thrown away (every `c_proj` is 0), so all that remains to be right is what happens to logits:
processors, sampling, ends and text.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refgen.bpe import byte_characters
from refgen.conformance.questions.cases import CHOICE, Case
from refgen.conformance.questions.probes.probe import LETTERS, Probe, blank, configured, ids, says, special, words

LOUD = 4.0  # how much louder than the token itself a clock's position speaks
GAIN = 8.0


# --- Dice -------------------------------------------------------------------------------------------------


def dice(z: Sequence[float], name: str = "dice", sentence: str = "", end: bool = True) -> Probe:
    """The logits are `z` at every step, exactly, whatever was fed.

    `ln_f` has no gain and the bias e0, so its output is e0; the head then reads the first number of each token's row, and
    that is its logit. The last token is `<|endoftext|>`; without `end` it ends nothing, for dice of any length. Numbers
    that fit bfloat16 and float16 come out exactly there too.
    """
    V, N, C = len(z), 256, 32
    config = configured(V, N, C, n_head=2) if end else configured(V, N, C, n_head=2, eos_token_id=None)
    tensors = blank(config)
    tensors["wte.weight"][:, 0] = z
    tensors["wpe.weight"][:, 1], tensors["wpe.weight"][:, 2] = 1, -1  # some variance for layer norms to divide by
    tensors["ln_f.weight"][:] = 0
    tensors["ln_f.bias"][0] = 1
    sentence = sentence or "The same logits at every step."
    letters = words(LETTERS[: V - 1])
    rules = ("FWD-04", "FWD-17", "LOOP-01")
    return Probe(
        name, sentence, rules, config, tensors, letters, special(config), facts={"logits": list(map(float, z))}
    )


def dice_dyadic() -> Probe:
    """Each logit is 11/16 below the last: probabilities halve (e^(11/16) is 1.989), in an order that is not the ids'."""
    ranks = [3, 0, 5, 1, 7, 2, 6, 4]
    z = [11 / 16 * (7 - rank) for rank in ranks]
    probe = dice([*z, -16.0], "dice-dyadic", "Probabilities near 1/2, 1/4, 1/8 and so on.", end=False)
    best = ids("BDFAHCGE")  # in order of probability
    return probe.asked(
        says("greedy", ["GREEDY-01"], "the token is not the likeliest", [ids("A")], [best[:1] * 4]),
        says("no-repeat-1", ["NGRAM-01"], "a token comes twice although no_repeat_ngram_size is 1", [ids("A")],
             [ids("BDFHCGE")], no_repeat_ngram_size=1),
        says("no-repeat-2", ["NGRAM-01"], "a pair of tokens comes twice", [ids("B")],
             [ids("BDBFBABH")], no_repeat_ngram_size=2, bug="EDGE_CASE"),
        says("bad-word", ["BAD-01"], "a forbidden token comes", [ids("A")], [ids("DDD")], bad_words_ids=[[1]]),
        says("bad-pair", ["BAD-01"], "the last token of a forbidden sequence is forbidden without the first", [ids("A")],
             [ids("BDBD")], bad_words_ids=[ids("BB")], bug="EDGE_CASE"),
        says("suppressed", ["SUP-01"], "a suppressed token comes", [ids("A")], [ids("FFF")], suppress_tokens=ids("BD")),
        says("suppressed-first", ["SUP-02"], "a token is suppressed at another step than the first", [ids("A")],
             [ids("DBB")], begin_suppress_tokens=ids("B")),
        says("bias", ["BIAS-01"], "a bias changes nothing", [ids("A")], [ids("EEE")], sequence_bias=[[ids("E"), 8.0]]),
        says("bias-pair", ["BIAS-01"], "the bias of a sequence acts without its beginning", [ids("A")],
             [ids("BDBD")], sequence_bias=[[ids("BD"), 2.0]], bug="EDGE_CASE"),
        drawn("uniforms", ["SAMP-01"], "BBDDFA", [0.26, 0.5, 0.7, 0.82, 0.86, 0.01]),
        drawn("temperature-2", ["TEMP-01"], "ABCDEFGH", [0.05, 0.2, 0.45, 0.6, 0.71, 0.8, 0.9, 0.95], temperature=2.0),
        drawn("temperature-half", ["TEMP-01"], "ABDF", [0.005, 0.5, 0.85, 0.97], temperature=0.5),
        drawn("top-k", ["TOPK-01"], "BDFF", [0.01, 0.6, 0.9, 0.999], top_k=3),
        drawn("top-p", ["TOPP-01"], "BDFF", [0.01, 0.6, 0.9, 0.999], top_p=0.8),
        drawn("min-p", ["MINP-01"], "BDFF", [0.01, 0.6, 0.9, 0.999], min_p=0.2),
    )  # fmt: skip


def dice_ties() -> Probe:
    """Two groups of four equal logits."""
    probe = dice([1, 1, 2, 2, 1, 2, 2, 1, -16], "dice-ties", "Four tokens equally likely, then four others.", end=False)
    return probe.asked(
        says("lowest-id", ["GREEDY-01"], "among equal tokens another than the first comes", [ids("A")], [ids("CCC")],
             bug="CONVENTION"),
        says("one-after-the-other", ["NGRAM-01", "GREEDY-01"], "among equal tokens the order is not that of the ids",
             [ids("H")], [ids("CDFGABE")], no_repeat_ngram_size=1, bug="CONVENTION"),
        drawn("min-p-ties", ["MINP-01"], "CDFG", [0.1, 0.3, 0.6, 0.9], min_p=0.9),
        replace(drawn("top-k-ties", ["TOPK-01"], "CDFG", [0.1, 0.3, 0.6, 0.9], top_k=2), result=CHOICE, choice="top_k_ties",
                expected={option: {"rows": [{"new_ids": ids(text), "finish": "length"}]}
                          for option, text in (("all_stay", "CDFG"), ("exactly_k", "CCDD"))}),
    )  # fmt: skip


def dice_wide() -> Probe:
    """61 logits 1/16 apart, shuffled, and two equal ones at the end: more tokens than a hidden top_k of 50 lets through."""
    V = 61
    z = [(37 * (i + 1)) % 61 / 16 for i in range(V)]
    probe = dice([*z, -16.0], "dice-wide", "61 tokens, each a little less likely than the last.", end=False)
    best = np.argsort(z)[::-1].tolist()
    return probe.asked(
        says("in-order", ["NGRAM-01", "GREEDY-01"], "tokens do not come in the order of their logits", [[best[60]]],
             [best[:60]], no_repeat_ngram_size=1),
    )  # fmt: skip


def dice_signs() -> Probe:
    """Positive and negative logits, which a repetition penalty treats differently."""
    probe = dice([4, 3, 1.5, -1, -1.5, -3, -16], "dice-signs", "Logits on both sides of zero.", end=False)
    return probe.asked(
        says("penalty", ["REP-01"], "a repetition penalty is left out, or counts a token twice", [ids("F")],
             [ids("ABAAA")], repetition_penalty=1.5),
        says("penalty-of-the-prompt", ["REP-01"], "the penalty does not see the prompt", [ids("A")], [ids("BAA")],
             repetition_penalty=1.75),
        says("negative", ["REP-01"], "a negative logit is divided, which makes the token likelier", [ids("D")],
             [ids("EDD")], repetition_penalty=2.0, suppress_tokens=ids("ABC"), bug="EDGE_CASE"),
        says("below-one", ["REP-01"], "a penalty below 1 does not reward", [ids("B")], [ids("BBB")],
             repetition_penalty=0.5, bug="EDGE_CASE"),
        says("row-by-row", ["REP-01", "REP-02", "BATCH-01"], "the penalty of one row acts on another, or padding counts",
             [ids("AB"), ids("C")], [ids("AAA"), ids("ABA")], repetition_penalty=1.5),
    )  # fmt: skip


def dice_end() -> Probe:
    """The end token is the likeliest of all."""
    probe = dice([2, 1, 0, 3], "dice-end", "The end token is the likeliest.")
    return probe.asked(
        says("first-step", ["STOP-02"], "text goes on although the first token is the end", [ids("A")], [[3]], "eos",
             max_new_tokens=5),
        says("minimum", ["LEN-07"], "min_new_tokens counts the prompt, or one too many", [ids("BCBC")], [[*ids("AA"), 3]],
             "eos", min_new_tokens=2, max_new_tokens=5),
        says("no-end", ["STOP-03"], "an end token that was switched off ends the text", [ids("A")], [[3, 3, 3]],
             eos_token_id=None),
        says("only-in-the-prompt", ["STOP-02"], "an end token in the prompt stops the text", [[0, 3, 1]], [ids("AA")],
             suppress_tokens=[3], bug="EDGE_CASE"),
        says("forced", ["FORCE-02"], "the last token is not the one that is forced", [ids("A")], [ids("AAAC")],
             forced_eos_token_id=2, suppress_tokens=[3], eos_token_id=None),
    )  # fmt: skip


def drawn(name: str, rules: Sequence[str], answer: str, uniforms: Sequence[float], **settings: Any) -> Case:
    """Letters that follow from the caller's own random numbers and the probabilities that settings leave."""
    chance: dict[str, Any] = {"do_sample": True, "top_k": 0, "uniforms": [list(uniforms)]}
    why = "random numbers choose another token than the law requires"
    return says(name, [*rules, "SAMP-10"], why, [ids("A")], [ids(answer)], **chance | settings)


# --- Clock ------------------------------------------------------------------------------------------------


def clock(
    script: Sequence[int],
    pieces: str | Sequence[bytes],
    merges: Sequence[tuple[str, str]] = (),
    name: str = "clock",
    sentence: str = "",
) -> Probe:
    """After position i comes the token `script[i]`, whatever was fed. There are as many positions as the script is long.

    One field. A token puts 1 into its own place, a position `LOUD` into the place of the next token. The largest wins.
    An implementation whose positions are off reads the wrong line, one without positions repeats the token, and one that
    multiplies embeddings by the root of C (here 5.7) does too. The last token is `<|endoftext|>`.
    """
    V, N = len(pieces) + 1, len(script)
    C = -(-V // 32) * 32
    config = configured(V, N, C)
    tensors = blank(config)
    tensors["wte.weight"][np.arange(V), np.arange(V)] = 1
    tensors["wpe.weight"][np.arange(N), list(script)] = LOUD
    tensors["ln_f.weight"][:] = GAIN
    sentence = sentence or "A script by position."
    rules = ("FWD-02", "PAD-04", "STOP-02")
    return Probe(
        name, sentence, rules, config, tensors, words(pieces, merges), special(config), facts={"script": list(script)}
    )


MOVED = ("position-plus-one", "position-plus-two", "no-positions", "embedding-scaled")
CACHED = ("cached-position-plus-one", "cached-position-zero")
SCRIPT = "CADBFEHGJ.ILKNMPBODAC.EGFIHKJMLN"  # . is the end


def clock_plain() -> Probe:
    """32 positions; the end comes twice, after position 9 and after 21."""
    V = 17
    script = [V - 1 if each == "." else LETTERS.index(each) for each in SCRIPT]
    probe = clock(script, LETTERS[: V - 1])
    end = V - 1

    def line(start: int, stop: int) -> list[int]:
        """What comes after positions start to stop - 1."""
        return script[start:stop]

    return probe.asked(
        says("script", ["FWD-02", "CACHE-02"], "positions are off, and with them every token", [ids("A")], [line(0, 8)],
             kills=(*MOVED, *CACHED)),
        says("padded", ["PAD-04", "PAD-05", "BATCH-01"], "padding moves the positions of a row",
             [ids("AAAA"), ids("A"), ids("AA")], [line(3, 8), line(0, 5), line(1, 6)],
             kills=(*MOVED, *CACHED, "position-counts-padding")),
        says("end", ["STOP-02"], "text goes on after the end token", [ids("ABC")], [line(2, 10)], "eos", max_new_tokens=20),
        says("end-at-the-limit", ["STOP-01"], "an end token that comes with the last allowed token is reported as length",
             [ids("ABC")], [line(2, 10)], "eos", bug="EDGE_CASE"),
        says("end-behind-the-limit", ["STOP-01", "LEN-01"], "one token too many or too few", [ids("ABC")], [line(2, 9)],
             bug="EDGE_CASE"),
        says("end-at-once", ["STOP-02"], "the first token is not asked whether it is the end", [ids("ABCDEFGHAB")],
             [[end]], "eos", max_new_tokens=5, bug="EDGE_CASE"),
        says("end-in-the-prompt", ["STOP-02", "PAD-03"], "an end token in the prompt ends the text or is masked",
             [[0, end, 1, end, 2]], [line(4, 8)], bug="EDGE_CASE"),
        says("second-of-two-ends", ["STOP-03"], "only the first of several end tokens ends the text", [ids("A")],
             [line(0, 5)], "eos", max_new_tokens=9, eos_token_id=[end, LETTERS.index("F")]),
        says("first-of-two-ends", ["STOP-03"], "only the last of several end tokens ends the text", [ids("A")],
             [line(0, 4)], "eos", max_new_tokens=9, eos_token_id=[LETTERS.index("B"), end]),
        says("no-end", ["STOP-03"], "an end token that was switched off ends the text", [ids("ABCDEFGH")], [line(7, 13)],
             eos_token_id=None),
        says("ends-of-their-own", ["STOP-04", "STOP-06"], "a row goes on until all have ended, or ends with another",
             [ids("ABCDEFGH"), ids("A"), ids("ABCD")], [line(7, 10), line(0, 6), line(3, 9)], ["eos", "length", "length"]),
        says("minimum", ["LEN-07"], "min_new_tokens counts the prompt, or one too many", [ids("ABCDEFGH")],
             [[*line(7, 9), LETTERS.index("J"), *line(10, 12)]], min_new_tokens=4),
        says("first-step-only", ["LEN-01"], "one new token gives no token or two", [ids("ABCDE")], [line(4, 5)], bug="EDGE_CASE"),
        context(script),
    )  # fmt: skip


def context(script: Sequence[int]) -> Case:
    """The prompt has 28 of 32 tokens, and the request is for more than fit."""
    case = says("context", ["LEN-04"], "the limit of the context is passed, or missed by one", [[0] * 28], [script[27:32]],
                "context", max_new_tokens=12, bug="EDGE_CASE")  # fmt: skip
    (row,) = case.expected["rows"]
    shorter = {"new_ids": row["new_ids"][:-1], "finish": "context"}
    options = {"n_plus_1": {"rows": [row]}, "n": {"rows": [shorter]}, "error": None}
    return replace(case, result=CHOICE, choice="context_end", expected=options)


def count() -> Probe:
    """Its own position: after position p comes the p-th letter, up to the end of the context."""
    N = 32
    script = list(range(N))
    probe = clock(script, LETTERS[:N], name="count", sentence="Its own position, as a letter.")
    return probe.asked(
        says("from-the-start", ["FWD-02"], "positions do not start at 0", [ids("f")], [script[:12]],
             kills=("position-plus-one", "position-plus-two", "no-positions")),
        says("to-the-end", ["LEN-04", "FWD-02"], "the last position cannot be used", [[5] * 8], [script[7:-1]]),
        says("padded", ["PAD-04", "LEN-05"], "padding takes positions", [ids("ABCDEFGHIJ"), ids("A")],
             [script[9:29], script[:20]], kills=("position-counts-padding",)),
        context(script),
    )  # fmt: skip


def clock_stop() -> Probe:
    """Tokens of one to three letters: stop strings begin and end inside of them."""
    pieces = [b"a", b"b", b"c", b"d", b"e", b"ab", b"ca", b"bd", b"cab", b" ", b"e "]
    merges = [("a", "b"), ("c", "a"), ("b", "d"), ("c", "ab"), ("e", "\u0120")]
    a, b, c, d, e, ab, ca, bd, cab, space, gap = range(len(pieces))
    script = [ab, ca, bd, space, cab, d, gap, e, e, ab, c, ab, b, d, ca, a]  # abcabd cabde eeabcabbdcaa
    probe = clock(script, pieces, merges, "clock-stop", "A script of tokens that overlap stop strings.")

    def stops(name: str, why: str, prompt: list[int], text: str | list[str], until: int, **more: Any) -> Case:
        """Ends after the script's entry `until`."""
        said = script[len(prompt) - 1 : until + 1]
        return says(name, ["SSTR-01", "SSTR-02"], why, [prompt], [said], "stop_string", stop_strings=text,
                    max_new_tokens=12, **more)  # fmt: skip

    return probe.asked(
        stops("one-token", "a stop string that is one token is not seen", [a], "bd", 2),
        stops("inside-a-token", "a stop string inside a token is not seen", [a], "d", 2),
        stops("two-tokens", "a stop string across the border of tokens is not seen", [a], "bca", 1),
        stops("three-tokens", "a stop string across three tokens is not seen", [a], "bcabd", 2),
        stops("false-start", "after a beginning that did not go on the string is not seen any more", [a], "cabde", 6),
        stops("with-a-space", "a space is lost before stop strings are looked for", [a], "d cab", 4),
        stops("first-of-several", "only the first of several stop strings counts", [a], ["ee", " "], 3),
        stops("from-the-prompt", "a stop string that begins in the prompt is not seen", [b, ab], "abcab", 2, bug="CONVENTION"),
        says("only-in-the-prompt", ["SSTR-03"], "a stop string in the prompt ends the text", [[d, e]], [script[1:4]],
             stop_strings="de", bug="EDGE_CASE"),
        says("never", ["SSTR-01"], "the text ends at a string that does not come", [[a]], [script[:8]], stop_strings="bb"),
        says("at-the-limit", ["STOP-01"], "a stop string with the last allowed token is reported as length", [[a]],
             [script[:3]], "stop_string", stop_strings="bd", bug="EDGE_CASE"),
    )  # fmt: skip


def clock_utf8() -> Probe:
    """Characters of two, three and four bytes, one token a byte or two."""
    text = "Aé世🐕 ñ"
    pieces = [bytes([byte]) for byte in sorted(set(text.encode()))]
    pair = "🐕".encode()[2:]
    names = byte_characters()
    pieces.append(pair)
    script = [pieces.index(bytes([byte])) for byte in text.encode()]
    script += [*script[6:8], len(pieces) - 1, *script[:4]]  # the dog again, its last two bytes as one token
    merges = [(names[pair[0]], names[pair[1]])]
    probe = clock(script, pieces, merges, "clock-utf8", "A script of characters that no single token holds.")
    first = pieces.index(b" ")

    def reads(name: str, start: int, stop: int, why: str, **more: Any) -> Case:
        """`script[start:stop]` comes out, and `text` is its text."""
        said = script[start:stop]
        case = says(name, ["TOK-11", "TOK-13"], why, [[first] * (start + 1)], [said], **more)
        (row,) = case.expected["rows"]
        spelled = b"".join(pieces[each] for each in said).decode(errors="replace")
        return replace(case, expected={"rows": [row | {"text": spelled}]})

    return probe.asked(
        reads("two-bytes", 0, 3, "a character of two tokens is lost or becomes two marks"),
        reads("all", 0, len(script) - 1, "a character of several tokens is lost"),
        reads("three-bytes", 3, 6, "a character of three tokens is lost"),
        reads("four-bytes", 6, 10, "a character of four tokens is lost"),
        reads("half-a-character", 3, 5, "half a character is not marked at the end", bug="EDGE_CASE"),
    )

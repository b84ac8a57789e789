"""Relations compare answers of the subject with each other. They work with any model and need no right answer.

A relation is a function of a ModelTalk that yields findings, one for each comparison; the first bad one counts. Two greedy answers that
differ by a tie that rounding explains are the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from refgen.conformance.judging.choices import advice, exact_logits
from refgen.conformance.judging.claims import claim_of_rule
from refgen.conformance.judging.judge import around
from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding, LabCheck, Verdict, together
from refgen.conformance.questions.model_talk import ModelTalk, must, tokens
from refgen.conformance.subjects.protocol import RefusedError
from refgen.generation.scores import log_softmax
from refgen.oracle.noise import LOGIT, expected_error, logit_scale

Relation = Callable[[ModelTalk], Iterable[Finding]]
RELATIONS: list[tuple[str, tuple[str, ...], str, frozenset[str], Relation]] = []
SHORT, LONG = 6, 20  # new tokens
ROOM = 64  # tokens that the longest prompt and its answer need
COLUMNS = ("plain_positions=columns",)


def relation(name: str, *rules: str, why: str, needs: str = "generate") -> Callable[[Relation], Relation]:
    """Lists a relation; `needs` are operations with blanks between them."""

    def listed(find: Relation) -> Relation:
        RELATIONS.append((name, rules, why, frozenset(needs.split()), find))
        return find

    return listed


def checks(lab: Lab) -> list[LabCheck]:  # noqa: ARG001 - all sources have one signature
    """All relations."""
    return [
        LabCheck(f"relations.{name}", claim_of_rule(rules[0]), rules, why, needs, partial(found, name, find))
        for name, rules, why, needs, find in RELATIONS
    ]


def found(name: str, find: Relation, lab: Lab) -> Finding:
    """What one relation finds in the lab's own model."""
    talk = ModelTalk(lab, name)
    if lab.about.loads and talk.limit < ROOM:
        return Finding(Verdict.SKIP, f"relations need a context of {ROOM} tokens, the model has {talk.limit}")
    return together(find(talk))


# --- The same question ------------------------------------------------------------------------------------


@relation("repeat", "GREEDY-04", why="a question asked again has the same greedy answer")
def repeat(talk: ModelTalk) -> Iterator[Finding]:
    """Twice, one after the other."""
    for prompt in talk.prompts(3):
        first, second = (talk.say(prompt, max_new_tokens=LONG) for _ in range(2))
        yield talk.same(prompt, first, second, "the same request twice")


@relation("forgets", "CACHE-01", "GREEDY-04", why="an answer does not depend on the question before")
def forgets(talk: ModelTalk) -> Iterator[Finding]:
    """A, a longer prompt that begins with A, another of A's length, then A again."""
    for prompt in talk.prompts(2):
        first = talk.say(prompt)
        talk.say(prompt + talk.prompt())
        talk.say(talk.prompt(20)[: len(prompt)])
        yield talk.same(prompt, first, talk.say(prompt), "before and after other requests")


@relation("batch", "BATCH-01", why="a row does not depend on its neighbours")
def batch(talk: ModelTalk) -> Iterator[Finding]:
    """Rows of one width together and alone."""
    width = 8
    prompts = [talk.prompt(20)[:width] for _ in range(5)]
    rows = talk.rows(prompts)
    yield must(len({tuple(tokens(row)) for row in rows}) > 1, "all rows of a batch of different prompts are the same")
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        yield talk.same(prompt, row, talk.say(prompt), f"row {number} of a batch and alone")


@relation("padded", "PAD-05", "PAD-04", why="a prompt that is padded on the left has the answer it has alone")
def padded(talk: ModelTalk) -> Iterator[Finding]:
    """Prompts of different lengths together, with the mask that says so."""
    prompts = talk.prompts(4)
    for number, (prompt, row) in enumerate(zip(prompts, talk.rows(prompts), strict=True)):
        yield talk.same(prompt, row, talk.say(prompt), f"row {number} of a padded batch and alone")


@relation("padded-alone", "PAD-05", "PAD-04", why="padding alone changes nothing, neither in the first step nor later")
def padded_alone(talk: ModelTalk) -> Iterator[Finding]:
    """One prompt, with seven columns of padding and without."""
    for prompt in talk.prompts(2):
        ids, mask = [[0] * 7 + prompt], [[0] * 7 + [1] * len(prompt)]
        yield talk.same(
            prompt, talk.rows(ids, attention_mask=mask, pad_token_id=0)[0], talk.say(prompt), "padded and not"
        )


@relation("order", "BATCH-01", why="rows come back in the order in which they were sent")
def order(talk: ModelTalk) -> Iterator[Finding]:
    """A batch forwards and backwards."""
    prompts = [talk.prompt(20)[:9] for _ in range(4)]
    forwards, backwards = talk.rows(prompts), talk.rows(prompts[::-1])[::-1]
    for number, prompt in enumerate(prompts):
        yield talk.same(prompt, forwards[number], backwards[number], f"row {number} in a batch and in it backwards")


@relation("cache", "CACHE-02", why="with a cache and without, the text is the same")
def cache(talk: ModelTalk) -> Iterator[Finding]:
    """use_cache on and off."""
    for prompt in talk.prompts(2):
        yield talk.same(
            prompt,
            talk.say(prompt, max_new_tokens=LONG),
            talk.say(prompt, max_new_tokens=LONG, use_cache=False),
            "use_cache on and off",
        )


@relation("chunks", "CACHE-03", why="a prompt read in pieces gives the same text")
def chunks(talk: ModelTalk) -> Iterator[Finding]:
    """Chunks of three tokens."""
    prompt = talk.prompt(12)
    yield talk.same(prompt, talk.say(prompt), talk.say(prompt, prefill_chunk_size=3), "the prompt whole and in chunks")


@relation("lookup", "ASSIST-01", why="drafts never change greedy text")
def lookup(talk: ModelTalk) -> Iterator[Finding]:
    """Prompt lookup on a prompt that repeats itself."""
    prompt = talk.prompt(5) * 3
    yield talk.same(
        prompt, talk.say(prompt), talk.say(prompt, prompt_lookup_num_tokens=4), "with prompt lookup and without"
    )


@relation("room", "LEN-01", "CACHE-02", why="the requested length does not change the beginning of a text")
def room(talk: ModelTalk) -> Iterator[Finding]:
    """A few tokens are the beginning of more."""
    for prompt in talk.prompts(2):
        few, many = talk.say(prompt, max_new_tokens=SHORT), talk.say(prompt, max_new_tokens=LONG)
        yield must(len(tokens(few)) <= len(tokens(many)), "fewer new tokens were requested, and more came")
        if "new_ids" in few:
            whole = len(few["new_ids"]) == SHORT or few.get("finish") == "eos"
            yield must(whole, f"{len(few['new_ids'])} new tokens, asked were {SHORT}")
            many = {"new_ids": many["new_ids"][:SHORT]}
        else:
            many = {"text": many["text"][: len(few["text"])]}
        yield talk.same(prompt, few, many, f"{SHORT} tokens and the first of {LONG}")


@relation("one", "LEN-01", why="one token is one token")
def one(talk: ModelTalk) -> Iterator[Finding]:
    """The smallest possible request."""
    prompt = talk.prompt()
    row = talk.say(prompt, max_new_tokens=1)
    if "new_ids" in row:
        yield must(len(row["new_ids"]) == 1, f"{len(row['new_ids'])} new tokens, asked was 1")
    yield must(row.get("finish") in (None, "length"), f"finish {row.get('finish')!r}, expected 'length'")


@relation("going-on", "LOOP-01", "CACHE-02", why="text that is continued goes on as if it had not stopped")
def going_on(talk: ModelTalk) -> Iterator[Finding]:
    """Some tokens, then more after them, and all in one request."""
    for prompt in talk.prompts(2):
        row = talk.say(prompt, max_new_tokens=SHORT)
        first = row.get("new_ids")
        if first is None or len(first) < SHORT or row.get("finish") == "eos":
            continue
        then = talk.say([*prompt, *first], max_new_tokens=SHORT)["new_ids"]
        whole = talk.say(prompt, max_new_tokens=2 * SHORT)
        yield talk.same(prompt, {"new_ids": [*first, *then]}, whole, "in two requests and in one")


# --- Greedy in other words ----------------------------------------------------------------------------------


@relation("temperature-greedy", "GREEDY-05", why="temperature, top-k and top-p do nothing to greedy text")
def temperature_greedy(talk: ModelTalk) -> Iterator[Finding]:
    """Settings that shape chance, without chance."""
    prompt = talk.prompt()
    plain = talk.say(prompt)
    for settings in ({"temperature": 0.3}, {"temperature": 3.0}, {"top_k": 2}, {"top_p": 0.3}):
        name = next(iter(settings))
        yield talk.same(prompt, plain, talk.say(prompt, **settings), f"greedy without {name} and with")


@relation("temperature-zero", "TEMP-02", why="temperature 0 is greedy")
def temperature_zero(talk: ModelTalk) -> Iterator[Finding]:
    """Sampling at temperature 0."""
    option = talk.lab.choice("temperature_zero")
    for seed, prompt in enumerate(talk.prompts(2)):
        try:
            zero = talk.say(prompt, do_sample=True, temperature=0.0, seed=seed)
        except RefusedError as error:
            if option == "greedy":
                raise RefusedError(f"{error}{advice(['temperature_zero=error'], str(error))}", error.rules) from error
            yield must(True, "")
            continue
        yield must(option != "error", "temperature 0 is answered; declared is temperature_zero=error")
        if option == "greedy":
            yield talk.same(prompt, talk.say(prompt), zero, "greedy and temperature 0")


@relation("top-k-one", "TOPK-03", why="the best token alone is greedy")
def top_k_one(talk: ModelTalk) -> Iterator[Finding]:
    """Sampling with top_k=1."""
    for seed, prompt in enumerate(talk.prompts(2)):
        yield talk.same(
            prompt, talk.say(prompt), talk.say(prompt, do_sample=True, top_k=1, seed=seed), "greedy and top_k=1"
        )


@relation("top-p-tiny", "TOPP-04", why="a tiny top_p leaves the best token, not none")
def top_p_tiny(talk: ModelTalk) -> Iterator[Finding]:
    """Sampling with top_p next to nothing."""
    for seed, prompt in enumerate(talk.prompts(2)):
        tiny = talk.say(prompt, do_sample=True, top_k=0, top_p=1e-6, seed=seed)
        yield talk.same(prompt, talk.say(prompt), tiny, "greedy and top_p=1e-6")


# --- Chance -------------------------------------------------------------------------------------------------


@relation("seed", "SAMP-05", why="a seed repeats what it gave")
def seed(talk: ModelTalk) -> Iterator[Finding]:
    """The same twice, with others between."""
    prompt = talk.prompt()
    say = partial(talk.say, prompt, do_sample=True, top_k=0, max_new_tokens=LONG)
    first = tokens(say(seed=7))
    say(seed=8)
    yield must(first == tokens(say(seed=7)), "the same seed gave other tokens")


@relation("seed-scope", "SAMP-04", why="one seed for a batch is one stream, or one for each row")
def seed_scope(talk: ModelTalk) -> Iterator[Finding]:
    """The same prompt twice in a batch, and alone. That two rows agree by chance is out of the question."""
    prompt = talk.prompt()
    say = partial(talk.rows, do_sample=True, top_k=0, temperature=1.5, max_new_tokens=LONG, seed=5)
    first, second = map(tokens, say([prompt, prompt]))
    if talk.lab.choice("seed_scope") == "request":
        alone = tokens(say([prompt])[0])
        yield must(first == alone and second == alone, "a row of a batch is not what the seed gives it alone")
    else:
        yield must(first != second, f"two rows of one seed are alike{advice(['seed_scope=request'])}")


@relation("seeds", "SAMP-05", why="another seed gives another text")
def seeds(talk: ModelTalk) -> Iterator[Finding]:
    """Eight seeds. That all agree by chance is out of the question where the model leaves any choice."""
    prompt = talk.prompt()
    said = [
        tokens(talk.say(prompt, do_sample=True, top_k=0, temperature=1.5, max_new_tokens=LONG, seed=n))
        for n in range(8)
    ]
    yield must(len({str(each) for each in said}) > 1, f"eight seeds gave the same text: {around(said[0], 0)}")


@relation("neutral", "PROC-05", why="a setting at its neutral value changes nothing")
def neutral(talk: ModelTalk) -> Iterator[Finding]:
    """Sampling with a seed, with settings at their neutral values and without."""
    prompt = talk.prompt()
    say = partial(talk.say, prompt, do_sample=True, seed=3, max_new_tokens=LONG)
    plain = tokens(say(top_k=0))
    for settings in (
        {"top_k": 0, "temperature": 1.0}, {"top_k": 0, "top_p": 1.0}, {"top_k": 0, "min_p": 0.0},
        {"top_k": 0, "repetition_penalty": 1.0}, {"top_k": 0, "no_repeat_ngram_size": 0},
    ):  # fmt: skip
        name, value = list(settings.items())[-1]
        yield must(tokens(say(**settings)) == plain, f"{name}={value} changes what a seed gives")


@relation("several", "SAMP-07", why="the requested number of answers, all different")
def several(talk: ModelTalk) -> Iterator[Finding]:
    """Six texts of one prompt; the adapter has counted them."""
    rows = talk.rows(
        [talk.prompt()], do_sample=True, top_k=0, temperature=1.5, num_return_sequences=6, seed=1, max_new_tokens=LONG
    )
    yield must(len({str(tokens(row)) for row in rows}) > 1, "all answers of one prompt are the same")


@relation("several-prompts", "SAMP-07", "BATCH-01", why="answers of one prompt stand together: a a b b")
def several_prompts(talk: ModelTalk) -> Iterator[Finding]:
    """Two prompts, three answers each, of which only the best token is left to say."""
    prompts = [talk.prompt(20)[:8] for _ in range(2)]
    alone = [talk.say(prompt) for prompt in prompts]
    rows = talk.rows(prompts, do_sample=True, top_k=1, num_return_sequences=3, seed=1)
    for number, row in enumerate(rows):
        yield talk.same(
            prompts[number // 3], row, alone[number // 3], f"answer {number} of 2 prompts and the prompt alone"
        )


# --- Ends ---------------------------------------------------------------------------------------------------


@relation("end", "STOP-02", why="an end token ends the text, and changes nothing before it")
def end(talk: ModelTalk) -> Iterator[Finding]:
    """A token that the text has anyway is made the end."""
    for prompt in talk.prompts(3):
        plain = talk.say(prompt, max_new_tokens=LONG).get("new_ids")
        if plain is None:
            return
        token = plain[len(plain) // 2]
        cut = plain[: plain.index(token) + 1]
        row = talk.say(prompt, max_new_tokens=LONG, eos_token_id=token)
        yield talk.same(prompt, row, {"new_ids": shown(talk, cut)}, f"with end token {token} and cut at it")
        yield must(row.get("finish") in (None, "eos"), f"finish {row.get('finish')!r}, expected 'eos'")


def shown(talk: ModelTalk, cut: list[int]) -> list[int]:
    """Text that an end token ends, with it or without, as the subject has declared."""
    return cut[:-1] if talk.lab.choice("end_token_in_ids") == "dropped" else cut


@relation("ends", "STOP-03", why="of several end tokens each ends the text")
def ends(talk: ModelTalk) -> Iterator[Finding]:
    """Two tokens that the text has, in either order."""
    prompt = talk.prompt()
    plain = talk.say(prompt, max_new_tokens=LONG).get("new_ids")
    if plain is None:
        return
    tokens_ = [plain[len(plain) // 2], plain[len(plain) // 3]]
    cut = plain[: min(map(plain.index, tokens_)) + 1]
    for several_ in (tokens_, tokens_[::-1]):
        row = talk.say(prompt, max_new_tokens=LONG, eos_token_id=several_)
        yield talk.same(prompt, row, {"new_ids": shown(talk, cut)}, f"with end tokens {several_} and cut at the first")


@relation("end-in-batch", "STOP-06", "STOP-05", why="a row that ends early leaves the others as they are")
def end_in_batch(talk: ModelTalk) -> Iterator[Finding]:
    """The end token is one that some rows say early. A row that ended alone by the model's own end token is compared up to there."""
    own = talk.reference.model.generation_config.eos_ids if not talk.lab.about.loads else ()
    prompts = [talk.prompt(20)[:8] for _ in range(4)]
    alone = [talk.say(prompt, max_new_tokens=LONG).get("new_ids", []) for prompt in prompts]
    if not alone[0]:
        return
    token = alone[0][len(alone[0]) // 8]
    for number, (prompt, row) in enumerate(
        zip(prompts, talk.rows(prompts, max_new_tokens=LONG, eos_token_id=token), strict=True)
    ):
        plain = alone[number]
        right = shown(talk, plain[: plain.index(token) + 1]) if token in plain else plain
        if token not in plain and (len(plain) < LONG or plain[-1] in own) and "new_ids" in row:
            row = {"new_ids": row["new_ids"][: len(plain)]}  # noqa: PLW2901 - where it ends alone is another token's doing
        yield talk.same(prompt, row, {"new_ids": right}, f"row {number}, rows ending at token {token}, and alone")


@relation("minimum", "LEN-07", why="text does not end before its minimum")
def minimum(talk: ModelTalk) -> Iterator[Finding]:
    """An end token that would come first is held back, and only until then."""
    prompt = talk.prompt()
    first = talk.say(prompt, max_new_tokens=1).get("new_ids")
    if first is None:
        return
    row = talk.say(prompt, max_new_tokens=LONG, min_new_tokens=5, eos_token_id=first[0])["new_ids"]
    yield must(
        first[0] not in row[:5], f"end token {first[0]} among the first 5 new tokens {row[:5]}, which are the minimum"
    )


@relation("stop-string", "SSTR-01", why="a stop string ends the text where it is whole, and not before")
def stop_string(talk: ModelTalk) -> Iterator[Finding]:
    """Four characters that the text has anyway, wherever tokens end."""
    if not talk.speaks:
        yield Finding(Verdict.SKIP, "the model has no tokenizer")
        return
    decode = talk.reference.text_of
    for prompt in talk.prompts(3):
        plain = talk.say(prompt, max_new_tokens=LONG)
        text = plain.get("text") or decode(plain["new_ids"])
        string = text[len(text) // 2 - 2 : len(text) // 2 + 2]
        if "\ufffd" in string or not string:
            continue
        row = talk.say(prompt, max_new_tokens=LONG, stop_strings=[string])
        finish = "eos" if talk.lab.choice("finish") == "stop_or_length" else "stop_string"
        yield must(row.get("finish") in (None, finish), f"finish {row.get('finish')!r}, expected {finish!r}")
        if "new_ids" in row and "new_ids" in plain:
            ids = plain["new_ids"]
            count = next(n for n in range(1, len(ids) + 1) if string in decode(ids[:n]))
            yield talk.same(prompt, row, {"new_ids": ids[:count]}, f"stopped by {string!r} and cut after it")


# --- What tokens may come -----------------------------------------------------------------------------------


@relation("ban", "SUP-01", why="a banned token never comes")
def ban(talk: ModelTalk) -> Iterator[Finding]:
    """The first tokens of the text are suppressed."""
    prompt = talk.prompt()
    first = talk.say(prompt).get("new_ids")
    if first is not None:
        banned = sorted(set(first[:3]))
        row = talk.say(prompt, suppress_tokens=banned)["new_ids"]
        yield must(not set(banned) & set(row), f"suppressed tokens {banned} came: {row}")


@relation("bias", "BIAS-01", why="a bias makes a token likelier or rules it out")
def bias(talk: ModelTalk) -> Iterator[Finding]:
    """Far up, far down."""
    prompt = talk.prompt()
    first = talk.say(prompt, max_new_tokens=1).get("new_ids")
    if first is None:
        return
    other = 5 if first[0] != 5 else 6
    up = talk.say(prompt, max_new_tokens=3, sequence_bias=[[[other], 100.0]])["new_ids"]
    yield must(set(up) == {other}, f"a bias of 100 for token {other} gives {up}")
    down = talk.say(prompt, max_new_tokens=3, sequence_bias=[[[first[0]], -100.0]])["new_ids"]
    yield must(first[0] not in down, f"a bias of -100 for token {first[0]} gives {down}")


@relation("ban-of-others", "SUP-01", "PROC-06", why="to ban what would not come changes nothing")
def ban_of_others(talk: ModelTalk) -> Iterator[Finding]:
    """Twenty tokens that the text does not have."""
    prompt = talk.prompt()
    plain = talk.say(prompt)
    if "new_ids" in plain:
        others = [token for token in range(5, 60) if token not in plain["new_ids"]][:20]
        yield talk.same(
            prompt, plain, talk.say(prompt, suppress_tokens=others), "without and with a ban of other tokens"
        )


@relation("ngram", "NGRAM-01", why="no pair of tokens comes twice")
def ngram(talk: ModelTalk) -> Iterator[Finding]:
    """The prompt counts."""
    prompt = talk.prompt(3) * 3
    row = talk.say(prompt, max_new_tokens=LONG, no_repeat_ngram_size=2).get("new_ids")
    if row is not None:
        text = [*prompt, *row]
        pairs = list(pairwise(text))
        again = [pair for place, pair in enumerate(pairs) if place >= len(prompt) - 1 and pair in pairs[:place]]
        yield must(not again, f"pairs {again[:3]} came again with no_repeat_ngram_size=2: {row}")


@relation("repetition", "REP-01", why="a penalty makes repeated tokens rarer, not commoner")
def repetition(talk: ModelTalk) -> Iterator[Finding]:
    """A hundred times as dear, a token does not come again while others are left."""
    prompt = talk.prompt()
    row = talk.say(prompt, max_new_tokens=LONG, repetition_penalty=100.0).get("new_ids")
    if row is not None:
        yield must(len(set(row)) >= len(row) - 2, f"repetition_penalty=100 gives {row}")


# --- What is said beside the tokens -------------------------------------------------------------------------


@relation("stream", "STREAM-03", why="text that is streamed is the text")
def stream(talk: ModelTalk) -> Iterator[Finding]:
    """Pieces joined, and against the request that is not streamed."""
    for prompt in talk.prompts(2):
        plain, row = talk.say(prompt, max_new_tokens=LONG), talk.say(prompt, max_new_tokens=LONG, stream=True)
        yield must(row.get("chunks") is not None, "a streamed answer has no chunks")
        yield must(row.get("text") is not None, "a streamed answer has no text")
        yield must(
            "".join(row["chunks"]) == row["text"],
            f"pieces make {''.join(row['chunks'])!r}, the text is {row['text']!r}",
        )
        yield talk.same(prompt, row, plain, "streamed and not")


@relation("logprobs", "OUT-08", why="log-probabilities are no more than 0, one for each token")
def logprobs(talk: ModelTalk) -> Iterator[Finding]:
    """Of greedy text."""
    row = talk.say(talk.prompt(), max_new_tokens=LONG)
    if row.get("logprobs") is None or "new_ids" not in row:
        yield Finding(Verdict.SKIP, "the subject gives no logprobs")
        return
    values = np.array(row["logprobs"])
    yield must(len(values) == len(row["new_ids"]), f"{len(values)} logprobs for {len(row['new_ids'])} tokens")
    yield must(bool((values <= 1e-6).all()), f"a log-probability of {values[~(values <= 1e-6)][:1]} is more than 0")


@relation("logprobs-forward", "OUT-08", why="log-probabilities are those of the logits", needs="generate forward")
def logprobs_forward(talk: ModelTalk) -> Iterator[Finding]:
    """Of greedy text, against the subject's own forward pass over it."""
    for prompt in talk.prompts(2):
        row = talk.say(prompt, max_new_tokens=LONG)
        if row.get("logprobs") is None or "new_ids" not in row or len(row["logprobs"]) != len(row["new_ids"]):
            yield Finding(Verdict.SKIP, "the subject gives no logprobs, one for each token")
            return
        ids = np.array([[*prompt, *row["new_ids"]]])
        exact = expected_error(talk.reference.gpt2, ids, None, talk.lab.noise, samples=4)
        chosen = (0, np.arange(len(prompt) - 1, ids.shape[1] - 1), row["new_ids"])
        z = log_softmax(talk.logits(ids.tolist())[0])[chosen[1:]]
        bound = 2 * LOGIT * logit_scale(exact)[chosen] + 1e-5  # both err, and they are told in some digits
        off = np.abs(np.array(row["logprobs"]) - z) / bound
        step = int(off.argmax())
        yield must(
            bool(off.max() <= 1),
            f"step {step}: log-probability {row['logprobs'][step]:.6g}, by its forward pass {z[step]:.6g}",
        )


@relation(
    "greedy-is-best",
    "GREEDY-01",
    why="greedy decoding takes the best token of the subject's logits",
    needs="generate forward",
)
def greedy_is_best(talk: ModelTalk) -> Iterator[Finding]:
    """Greedy text against the subject's own forward pass over it."""
    for prompt in talk.prompts(2):
        row = talk.say(prompt, max_new_tokens=LONG)
        if "new_ids" not in row:
            return
        best = talk.logits([[*prompt, *row["new_ids"]]])[0, len(prompt) - 1 : -1].argmax(axis=-1)
        yield talk.same(prompt, row, {"new_ids": best.tolist()}, "greedy text and the best tokens of its forward pass")


# --- Logits -------------------------------------------------------------------------------------------------


@relation("causal", "FWD-09", why="what comes later changes nothing before", needs="forward")
def causal(talk: ModelTalk) -> Iterator[Finding]:
    """A text and its beginning, with two ends."""
    beginning = talk.prompt(12)
    one_end, other_end = ([*beginning, *talk.prompt(6)] for _ in range(2))
    T = len(beginning)
    alone = talk.logits([beginning])
    for whole in (one_end, other_end):
        yield talk.near(alone, talk.logits([whole])[:, :T], [beginning], "a text and the same with more after it")


@relation("forward-batch", "BATCH-01", why="a row's logits do not depend on its neighbours", needs="forward")
def forward_batch(talk: ModelTalk) -> Iterator[Finding]:
    """Rows of one width together and alone."""
    prompts = [talk.prompt(20)[:9] for _ in range(4)]
    together_ = talk.logits(prompts)
    for number, prompt in enumerate(prompts):
        yield talk.near(
            together_[number : number + 1], talk.logits([prompt]), [prompt], f"row {number} of a batch and alone"
        )


@relation("forward-padded", "PAD-05", "PAD-04", why="padding changes no logit", needs="forward")
def forward_padded(talk: ModelTalk) -> Iterator[Finding]:
    """Padded on the left, with the mask that says so."""
    prompt = talk.prompt(12)
    ids, mask = [[0] * 5 + prompt], [[0] * 5 + [1] * len(prompt)]
    logits = talk.logits(ids, attention_mask=mask)[:, 5:]
    columns = exact_logits(talk.lab, talk.model, {"input_ids": ids, "attention_mask": mask}, COLUMNS)[:, 5:]
    if talk.lab.choice("plain_positions") == "columns":
        yield talk.near(logits, columns, [prompt], "padded, with positions that count columns")
        return
    found = talk.near(logits, talk.logits([prompt]), [prompt], "padded and not")
    if not found.verdict.good and talk.near(logits, columns, [prompt], "").verdict.good:
        found = replace(found, message=found.message + advice(COLUMNS))
    yield found


@relation("forward-cached", "CACHE-02", "FWD-02", why="logits through a cache are those without", needs="forward")
def forward_cached(talk: ModelTalk) -> Iterator[Finding]:
    """The second half one by one."""
    prompt = talk.prompt(16)
    yield talk.near(
        talk.logits([prompt], prefill=len(prompt) // 2), talk.logits([prompt]), [prompt], "through a cache and at once"
    )


# --- Text ---------------------------------------------------------------------------------------------------


@relation("round-trip", "TOK-11", "TOK-04", why="every text comes back as it was", needs="encode decode")
def round_trip(talk: ModelTalk) -> Iterator[Finding]:
    """Random characters of all planes."""
    ranges = ((32, 127), (0, 32), (0xA0, 0x600), (0x3000, 0x3100), (0x4E00, 0x5000), (0x1F300, 0x1F650))
    for _ in range(20):
        spans = talk.chance.integers(0, len(ranges), 20)
        text = "".join(chr(int(talk.chance.integers(*ranges[span]))) for span in spans)
        ids = talk.lab.ask("encode", talk.model, text=text)["ids"]
        back = talk.lab.ask("decode", talk.model, ids=ids, skip_special_tokens=False)["text"]
        yield must(back == text, f"{text!r} comes back as {back!r}")

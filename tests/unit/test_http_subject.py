"""The adapter for servers: http.py, discover.py and wire.py, on a server of our own (openai_server.py)."""

from dataclasses import replace

import pytest

from refgen.conformance.subjects.dialects import DIALECTS
from refgen.conformance.subjects.http import HttpSubject, connect
from refgen.conformance.subjects.protocol import CrashedError, GarbledError, RefusedError, SkippedError, TimedOutError
from refgen.conformance.subjects.wire import Wire
from refgen.names import find_model
from tests.openai_server import BROKEN, Server

FOLDER = find_model("shakespeare")
ROMEO = [813, 25]


@pytest.fixture(scope="module")
def subjects():
    """A subject for each kind of server, connected once."""
    kinds = {
        "plain": {}, "vllm": {"owner": "vllm"}, "text": {"texts_only": True}, "chat": {"shape": "chat"},
        "poor": {"texts_only": True, "refuses": ["logprobs", "n", "seed", "echo", "logit_bias", "stream_options", "top_p"]},
        "strict": {"owner": "vllm", "refuses": ["min_p", "repetition_penalty", "return_token_ids"]},
        "idle": {"owner": "llamacpp"},
    }  # fmt: skip
    servers = {name: Server(FOLDER, **settings) for name, settings in kinds.items()}
    connected = {name: connect(server.__enter__(), FOLDER) for name, server in servers.items()}
    yield connected
    for name, server in servers.items():
        connected[name].close()
        server.__exit__()


def generate(subject, input_ids, **settings):
    return subject.ask("generate", FOLDER, {"input_ids": input_ids, **settings})["rows"]


# --- Finding out -------------------------------------------------------------------------------------------------


def test_what_a_server_can_is_found_out(subjects):
    """Prompts, tokens, numbers and fields; what is missing is said."""
    plain, vllm, text, chat, poor = (subjects[name].profile for name in ("plain", "vllm", "text", "chat", "poor"))
    assert [each.dialect.name for each in (plain, vllm, text)] == ["openai-legacy", "vllm", "openai-legacy"]
    assert [each.ids_in for each in (plain, text)] == [True, False]
    assert [each.ids_from for each in (plain, vllm, chat, poor)] == ["token strings", "token_ids", "logprobs", "text"]
    assert (plain.logprobs, poor.logprobs) == (1024, 0)
    assert {"n", "seed", "echo", "stream", "logit_bias", "logprobs"} <= plain.accepts
    assert poor.accepts == {"stop", "stream"}
    assert any("no logprobs" in each for each in poor.missing)
    assert "not tested: no echo" in str(poor)
    assert subjects["poor"].wire.spent < 50


def test_fields_that_do_nothing_are_found_out(subjects):
    """A server that calls itself llama.cpp and knows none of its fields: they are accepted and idle, so never relied upon."""
    idle = subjects["idle"]
    assert idle.profile.dialect.name == "llama.cpp"
    assert {"top_k", "min_p", "repeat_penalty"} <= idle.profile.idle
    assert not subjects["vllm"].profile.idle
    with pytest.raises(SkippedError, match="top_k is accepted and has no effect"):
        generate(idle, [ROMEO], max_new_tokens=2, do_sample=True, seed=1)


def test_refused_fields_are_not_sent_again(subjects):
    """What was answered 400 once is left out, and what needs it is skipped by name."""
    strict = subjects["strict"]
    assert strict.profile.refused == {"min_p", "repetition_penalty"}
    assert strict.profile.ids_from == "token strings"
    assert generate(strict, [ROMEO], max_new_tokens=3)[0]["new_ids"]
    with pytest.raises(SkippedError, match="no field for repetition_penalty"):
        generate(strict, [ROMEO], max_new_tokens=3, repetition_penalty=2.0)


def test_about_names_what_can_be_asked(subjects):
    """A check that needs echo finds out here that there is none; a server has one model."""
    about = subjects["poor"].about
    assert {"generate", "complete", "stream"} <= about.can
    assert "echo" not in about.can
    assert not about.loads
    with pytest.raises(SkippedError, match="has loaded shakespeare"):
        subjects["poor"].ask("generate", FOLDER.parent, {"input_ids": [ROMEO]})
    with pytest.raises(SkippedError, match="no forward"):
        subjects["poor"].ask("forward", FOLDER, {"input_ids": [ROMEO]})


# --- generate() ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "vllm", "text", "chat", "poor"])
def test_greedy_rows_are_the_models_own(subjects, shakespeare, name):
    """Tokens, end token and finish of two prompts, whatever the server tells of them."""
    model, tokenizer = shakespeare
    for prompt in (ROMEO, tokenizer.encode("The king")):
        (row,) = generate(subjects[name], [prompt], max_new_tokens=30)
        result = model.generate([prompt], max_new_tokens=30, return_dict_in_generate=True)
        assert row["new_ids"] == result.sequences[0, len(prompt) :].tolist()
        assert row["finish"] == result.finish[0]


def test_padding_is_not_sent(subjects, shakespeare):
    """PAD-05. A row of a batch is asked for by its own tokens; any other mask is skipped."""
    model, _ = shakespeare
    rows = generate(
        subjects["plain"], [[0, *ROMEO], [5, 6, 7]], attention_mask=[[0, 1, 1], [1, 1, 1]], max_new_tokens=4
    )
    alone = [model.generate([prompt], max_new_tokens=4)[0, len(prompt) :].tolist() for prompt in (ROMEO, [5, 6, 7])]
    assert [row["new_ids"] for row in rows] == alone
    with pytest.raises(SkippedError, match="hides more than padding"):
        generate(subjects["plain"], [[1, 2, 3]], attention_mask=[[1, 0, 1]], max_new_tokens=4)


def test_settings_become_fields(subjects, shakespeare):
    """Those of vLLM: chance, its cuts, penalties and biases act as in generate()."""
    model, _ = shakespeare
    for settings in (
        {"repetition_penalty": 3.0},
        {"sequence_bias": [[[40], 3.0], [[46], -50.0]]},
        {"do_sample": True, "seed": 5},
        {"do_sample": True, "seed": 5, "top_k": 3, "temperature": 2.0},
        {"do_sample": True, "seed": 5, "top_k": 0, "top_p": 0.5, "min_p": 0.01},
    ):
        (row,) = generate(subjects["vllm"], [ROMEO], max_new_tokens=8, **settings)
        assert row["new_ids"] == model.generate([ROMEO], max_new_tokens=8, **settings)[0, 2:].tolist(), settings


def test_seeds_are_one_a_row(subjects):
    """SAMP-09. The same prompt twice under one seed is drawn twice; the call can be repeated."""
    ask = {"input_ids": [ROMEO, ROMEO], "do_sample": True, "top_k": 0, "max_new_tokens": 12, "num_return_sequences": 2}
    first, again = (generate(subjects["plain"], seed=3, **ask) for _ in range(2))
    texts = [row["text"] for row in first]
    assert texts == [row["text"] for row in again]
    assert len(set(texts)) == 4
    assert subjects["plain"].profile.most == 4
    ask["num_return_sequences"] = 5
    assert len({row["text"] for row in generate(subjects["plain"], seed=3, **ask)}) == 10
    rows = generate(subjects["plain"], [ROMEO, ROMEO], seed=[3, 3], do_sample=True, top_k=0, max_new_tokens=12)
    assert rows[0]["text"] == rows[1]["text"] == texts[0]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("plain", {"do_sample": True}, "no field for top_k"),
        ("plain", {"eos_token_id": 5}, "no field for eos_token_id"),
        ("plain", {"no_repeat_ngram_size": 2}, "no field for no_repeat_ngram_size"),
        ("plain", {"num_beams": 2}, "no field for num_beams"),
        ("plain", {"uniforms": [[0.5]]}, "no field for uniforms"),
        ("plain", {"sequence_bias": [[[1, 2], 3.0]]}, "sequence_bias of several tokens"),
        ("plain", {"sequence_bias": [[[1], 101.0]]}, "beyond 100"),
        ("poor", {"sequence_bias": [[[1], 1.0]]}, "no logit_bias"),
        ("plain", {"stop_strings": ["a"]}, "ids after the cut"),
        ("poor", {"do_sample": True, "top_k": 0, "seed": 1}, "no seed"),
    ],
)
def test_what_has_no_field_is_skipped_by_name(subjects, name, settings, words):
    """Nothing is left out in silence."""
    with pytest.raises(SkippedError, match=words):
        generate(subjects[name], [ROMEO], max_new_tokens=3, **settings)


def test_prompts_that_no_text_gives(subjects):
    """A server that takes text cannot be asked with half a character."""
    with pytest.raises(SkippedError, match="no text gives"):
        generate(subjects["text"], [[127]], max_new_tokens=3)
    assert generate(subjects["plain"], [[127]], max_new_tokens=3)[0]["new_ids"]


@pytest.mark.parametrize("name", ["plain", "vllm", "text"])
def test_no_end_token(subjects, shakespeare, name):
    """STOP-03. Without a field for it, a row is what it would be as long as the model does not end it."""
    model, tokenizer = shakespeare
    (row,) = generate(subjects[name], [ROMEO], max_new_tokens=8, eos_token_id=None)
    assert row["new_ids"] == model.generate([ROMEO], max_new_tokens=8, eos_token_id=None)[0, 2:].tolist()
    assert row["finish"] == "length"
    prompt = tokenizer.encode("What is the")
    if name == "vllm":
        (row,) = generate(subjects[name], [prompt], max_new_tokens=8, eos_token_id=None)
        assert row["new_ids"] == model.generate([prompt], max_new_tokens=8, eos_token_id=None)[0, 3:].tolist()
        return
    with pytest.raises(SkippedError, match="own end token"):
        generate(subjects[name], [prompt], max_new_tokens=8, eos_token_id=None)


def test_what_a_server_refuses_is_a_refusal(subjects):
    """TEMP-02, LEN-01. Nonsense is passed on for the server to refuse."""
    with pytest.raises(RefusedError, match="400: 300 tokens"):
        generate(subjects["plain"], [[5] * 300], max_new_tokens=3)
    with pytest.raises(RefusedError, match="must be a number"):
        subjects["plain"].ask("complete", FOLDER, {"body": {"prompt": ROMEO, "max_tokens": "x"}})


# --- No answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_no_answer(subjects, fault):
    """SERVE-10. Silence, drops without end, garbage and a closed connection are verdicts on the server, never errors of ours."""
    with Server(FOLDER, fault) as url:
        known = subjects["plain"]
        subject = HttpSubject(Wire(url, timeout=0.4), FOLDER, known.profile, known.tokenizer, "float32", {})
        kinds = {each.__name__: each for each in (CrashedError, GarbledError, TimedOutError)}
        for stream in (False, True) if fault in ("hangs", "drips", "dies") else (fault == "garbage_stream",):
            with pytest.raises(kinds[BROKEN[fault]]):
                subject.ask("complete", FOLDER, {"body": {"prompt": ROMEO, "max_tokens": 2, "stream": stream}})
        subject.close()


def test_nobody_there():
    """A refused connection is a crash, said with the address."""
    with Server(FOLDER) as url:
        pass
    with pytest.raises(CrashedError, match="http://127"):
        connect(url, FOLDER)


def test_errors_of_the_server_are_crashes(subjects):
    """SERVE-10. 500 is no refusal."""
    with Server(FOLDER, "prompt_crash") as url:
        known = subjects["plain"]
        subject = HttpSubject(Wire(url), FOLDER, known.profile, known.tokenizer, "float32", {})
        with pytest.raises(CrashedError, match="500: RuntimeError"):
            generate(subject, [[5] * 300], max_new_tokens=3)
        subject.close()


def test_the_budget_is_kept(subjects):
    """After so many requests nothing is asked any more."""
    known = subjects["plain"]
    wire = Wire(known.wire.url, budget=1)
    subject = HttpSubject(wire, FOLDER, known.profile, known.tokenizer, "float32", {})
    generate(subject, [ROMEO], max_new_tokens=1)
    with pytest.raises(SkippedError, match="budget of 1"):
        generate(subject, [ROMEO], max_new_tokens=1)
    subject.close()


def test_llama_cpp_is_asked_for_our_order_of_samplers(subjects, shakespeare):
    """PROC-01. Those in use and no others, temperature first; what it does by itself is switched off."""
    profile = replace(subjects["plain"].profile, dialect=DIALECTS["llama.cpp"])
    vocabulary = subjects["plain"].vocabulary
    sent = profile.request({"prompt": ROMEO, "min_p": 0.1, "top_k": 5}, False, vocabulary)
    assert sent["samplers"] == ["temperature", "top_k", "min_p"]
    assert (sent["repeat_penalty"], sent["cache_prompt"], sent["temperature"]) == (1.0, False, 0)
    assert "cache_prompt" not in profile.request({"prompt": ROMEO, "fresh": False}, False, vocabulary)

"""Fresh questions: networks and prompts that nobody has seen, drawn when the check is made. An implementation fitted to
the stored cases fails here.

Some networks are configured as OpenAI's are, others have all switches of the configuration. Right answers are those of the float64
forward pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from refgen import checkpoints
from refgen.checkpoints import assemble, tensor_shapes
from refgen.config import GPT2Config
from refgen.conformance.judging.choices import Asked, Right, exact_logits
from refgen.conformance.judging.judge import judge_greedy, judge_logits
from refgen.conformance.judging.lab import Lab, chance
from refgen.conformance.judging.verdicts import Finding, LabCheck, Verdict, together
from refgen.conformance.questions.model_talk import ModelTalk, must, tokens
from refgen.model import GPT2

RELEASED, OTHERS = 3, 3  # networks
FORWARD, GENERATE = frozenset({"forward"}), frozenset({"generate"})
ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu", "quick_gelu", "gelu_pytorch_tanh")


def checks(lab: Lab) -> list[LabCheck]:
    """Logits and greedy text of fresh networks, and of fresh prompts to the model with text; of a subject's only model, drawn ids too."""
    trained = "a trained network, and words that nobody has seen together"
    found = [
        LabCheck("forward.own", "network", ("FWD-03",), trained, FORWARD, own_logits),
        LabCheck("forward.own.padded", "padding", ("PAD-05", "PAD-04"), trained, FORWARD, own_padded),
        LabCheck("loop.own", "greedy", ("GREEDY-01",), trained, GENERATE, own_text),
    ]
    if lab.one_model and lab.about.loads:
        found.append(LabCheck("forward.drawn", "network", ("FWD-03",), "ids that no text has", FORWARD, drawn_logits))
    for number in range(0 if lab.one_model else RELEASED + OTHERS):
        name, why = f"fresh.{number}", "a network and a prompt that nobody has seen"
        claims = ("network", "padding", "greedy") if number < RELEASED else ("configurations",) * 3
        logits, padded, text = (partial(find, number) for find in (fresh_logits, fresh_padded, fresh_text))
        found += [
            LabCheck(f"forward.{name}", claims[0], ("FWD-03",), why, FORWARD, logits),
            LabCheck(f"forward.{name}.padded", claims[1], ("PAD-05", "PAD-04"), why, FORWARD, padded),
            LabCheck(f"loop.{name}", claims[2], ("GREEDY-01",), why, GENERATE, text),
        ]
    return found


def own_logits(lab: Lab) -> Finding:
    """Some words."""
    talk = ModelTalk(lab, "forward.own")
    return judged(lab, talk.model, {"input_ids": [(talk.prompt(30) * 9)[: min(talk.limit, 48)]]})


def own_padded(lab: Lab) -> Finding:
    """Two rows, one of them padded."""
    talk = ModelTalk(lab, "forward.own.padded")
    long, short = talk.prompt(20)[:16], talk.prompt(6)[:10]
    gap = len(long) - len(short)
    mask = [[1] * len(long), [0] * gap + [1] * len(short)]
    return judged(lab, talk.model, {"input_ids": [long, [0] * gap + short], "attention_mask": mask})


def own_text(lab: Lab) -> Finding:
    """Some prompts, forty tokens each."""
    talk = ModelTalk(lab, "loop.own")
    return together(judged_text(talk, ids, min(40, talk.limit - len(ids))) for ids in talk.prompts(3, 8))


def drawn_logits(lab: Lab) -> Finding:
    """Two rows of any ids."""
    talk = ModelTalk(lab, "forward.drawn")
    V = talk.reference.gpt2.config.vocab_size
    return judged(lab, talk.model, {"input_ids": talk.chance.integers(V, size=(2, min(talk.limit, 24))).tolist()})


def fresh_logits(number: int, lab: Lab) -> Finding:
    """As many random ids as there is room for, one row."""
    model, ids = drawn_ids(lab, number)
    return judged(lab, model, {"input_ids": ids[:1].tolist()})


def fresh_padded(number: int, lab: Lab) -> Finding:
    """The same, one row padded by a third."""
    model, ids = drawn_ids(lab, number)
    mask = np.arange(ids.shape[1]) >= np.array([[0], [ids.shape[1] // 3]])
    return judged(lab, model, {"input_ids": ids.tolist(), "attention_mask": mask.astype(int).tolist()})


def drawn_ids(lab: Lab, number: int) -> tuple[str, ndarray]:
    """A network and two rows of ids."""
    model = network(lab, number)
    config = lab.reference(model).gpt2.config
    return model, lab.chance(f"ids of {model}").integers(0, config.vocab_size, (2, config.n_positions))


def fresh_text(number: int, lab: Lab) -> Finding:
    """Random ids, half the context."""
    talk = ModelTalk(lab, f"loop.fresh.{number}", network(lab, number))
    config = talk.reference.gpt2.config
    prompt = talk.chance.integers(0, config.vocab_size, config.n_positions // 2).tolist()
    return judged_text(talk, prompt, config.n_positions // 2)


def judged(lab: Lab, model: str, request: dict[str, Any]) -> Finding:
    """The subject's logits of one request."""
    ids, mask = (
        np.asarray(request.get(name, np.ones_like(request["input_ids"]))) for name in ("input_ids", "attention_mask")
    )
    noise = lab.expected_error(model, ids, mask)
    scale = np.where(mask, noise.scale["lm_head"], 0.0)

    def judge(answer: Mapping[str, Any], right: Mapping[str, Any]) -> Finding:
        return judge_logits(lab, model, request, answer["logits"], right["logits"], scale)

    own = Right({"logits": exact_logits(lab, model, request, ())})
    rules = ("FWD-16", "FWD-05", "FWD-02")
    return Asked(lab, "forward", model, request, own, judge, rules=rules, ask=logits_of).held()


def logits_of(lab: Lab, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The subject's logits `[B T V]`; rows without padding one by one, if it does not take several."""
    if "attention_mask" in request or lab.answers("forward", request):
        return lab.ask("forward", model, **request)
    alone = [lab.ask("forward", model, **{**request, "input_ids": [row]})["logits"] for row in request["input_ids"]]
    return {"logits": np.concatenate(alone)}


def judged_text(talk: ModelTalk, prompt: list[int], count: int) -> Finding:
    """The subject's greedy text after one prompt."""
    request: dict[str, Any] = {"input_ids": [prompt], "max_new_tokens": count}
    request |= talk.endless()
    observed = tokens(talk.say(prompt, max_new_tokens=count))
    mask = [[1] * len(prompt)]
    result = talk.reference.model.generate(attention_mask=mask, pad_token_id=0, return_dict_in_generate=True, **request)
    expected = result.sequences[0, len(prompt) : result.lengths[0]].tolist()
    if isinstance(observed, str):
        text = talk.reference.tokenizer.decode(expected, skip_special_tokens=True)
        return must(observed == text, f"text {observed!r}, expected {text!r}")
    if observed == expected:
        return Finding(Verdict.PASS)
    message = f"new_ids {observed}, expected {expected}"
    return judge_greedy(talk.lab, talk.model, request, 0, observed, message, {"expected": expected})


# --- Networks -----------------------------------------------------------------------------------------------


def network(lab: Lab, number: int) -> str:
    """The name of a fresh network, whose folder is written at its first use."""
    name, put = fresh(lab.seed, number)
    lab.add(name, put)
    return name


def fresh(seed: int, number: int) -> tuple[str, Callable[[Path], None]]:
    """The name of a network, and the function that writes it: the same for a seed, wherever it is used."""
    name = f"fresh-{seed}-{number}"
    return name, partial(write, chance(seed, name), number < RELEASED)


def write(numbers: np.random.Generator, is_released: bool, folder: Path) -> None:
    """A random configuration with random weights, all of which matter."""
    checkpoints.save(drawn(numbers, is_released), folder)


def drawn(chance: np.random.Generator, is_released: bool) -> GPT2:
    """The network, of random sizes; of a released GPT-2's switches or of any."""
    n_head = int(chance.integers(2, 5))
    config = GPT2Config(
        vocab_size=int(chance.integers(50, 120)),
        n_positions=int(chance.integers(16, 33)),
        n_embd=n_head * int(chance.integers(4, 12)),
        n_layer=int(chance.integers(2, 4)),
        n_head=n_head,
        bos_token_id=None,
        eos_token_id=None,
    )
    if is_released:
        return weighted(chance, config)
    config = replace(
        config,
        n_inner=None if chance.random() < 0.5 else int(chance.integers(8, 64)),
        activation_function=str(chance.choice(ACTIVATIONS)),
        layer_norm_epsilon=float(chance.choice([1e-5, 1e-3, 0.03])),
        scale_attn_weights=bool(chance.random() < 0.7),
        scale_attn_by_inverse_layer_idx=bool(chance.random() < 0.3),
        tie_word_embeddings=bool(chance.random() < 0.5),
    )
    return weighted(chance, config)


def weighted(chance: np.random.Generator, config: GPT2Config) -> GPT2:
    """A network of this configuration."""
    return assemble(config, {name: weight(chance, name, shape) for name, shape in tensor_shapes(config).items()})


def weight(chance: np.random.Generator, name: str, shape: tuple[int, ...]) -> ndarray:
    """Vectors of a half, gains about 1, matrices that keep what they are given in size."""
    spread = 0.5 if len(shape) == 1 or not name.startswith("h.") else 1.2 / np.sqrt(shape[0])
    gain = len(shape) == 1 and name.endswith("weight")
    return (chance.normal(0, 0.2 if gain else spread, shape) + gain).astype(np.float32)

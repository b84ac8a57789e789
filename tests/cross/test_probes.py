"""Probe checkpoints in transformers: loaded without a warning, and right in float32, bfloat16 and float16, padded rows too."""

import logging
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from refgen.conformance.questions.cases import MUST
from refgen.conformance.questions.probes import PROBES, write
from tests.teacher import probe

DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every probe, written."""
    root = tmp_path_factory.mktemp("probes")
    for name in PROBES:
        write(probe(name), root / name)
    return root


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are too small to be shared out: several threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Heard(logging.Handler):
    """What transformers says."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        """One message."""
        self.said.append(record.getMessage())


def said(model, tokenizer, case, padding=0):
    """The new tokens of each row, as many as are expected; with so many more columns of padding."""
    request = dict(case.request)
    ids = torch.tensor(request.pop("input_ids"))
    mask = torch.tensor(request.pop("attention_mask")) if "attention_mask" in request else torch.ones_like(ids)
    ids = torch.nn.functional.pad(ids, (padding, 0), value=0)
    mask = torch.nn.functional.pad(mask, (padding, 0), value=0)
    reader = {"tokenizer": tokenizer} if "stop_strings" in request else {}
    rows = model.generate(ids, attention_mask=mask, **request, **reader)[:, ids.shape[1] :].tolist()
    return [row[: len(want["new_ids"])] for row, want in zip(rows, case.expected["rows"], strict=True)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_transformers_says_what_is_expected(dtype, folders, figures):
    """Every case that transformers can be asked, in the formats the probe is for."""
    logger = logging.getLogger("transformers")
    level = logger.level
    count = 0
    for name in PROBES:
        if dtype not in probe(name).dtypes:
            continue
        heard = Heard()
        logger.addHandler(heard)
        logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = AutoModelForCausalLM.from_pretrained(folders / name, dtype=getattr(torch, dtype))
            tokenizer = AutoTokenizer.from_pretrained(folders / name)
        logger.removeHandler(heard)
        logger.setLevel(level)
        assert not heard.said, name
        for case in probe(name).cases:
            if (
                case.result == MUST and not case.request["do_sample"]
            ):  # not the choices, nor refgen's own random numbers
                wanted = [row["new_ids"] for row in case.expected["rows"]]
                assert said(model, tokenizer, case) == wanted, (case.id, dtype)
                count += 1
                # transformers counts padding in bans of pairs (NGRAM-02)
                if not case.request.keys() - {"input_ids", "attention_mask", "max_new_tokens", "do_sample"}:
                    assert said(model, tokenizer, case, padding=3) == wanted, (case.id, dtype, "padded")
    figures.append(f"probes in transformers, {dtype}: {count} cases right")
    assert count > 90


def test_why_two_probes_need_float32(folders):
    """transformers computes gelu_new step by step: in bfloat16 1 + tanh is 0 far out, and the letter is that of ReLU."""
    case = probe("gelu-tanh").cases[0]
    model = AutoModelForCausalLM.from_pretrained(folders / "gelu-tanh", dtype=torch.bfloat16)
    letter = probe("gelu-tanh").tokenizer["model"]["vocab"]["r"]
    assert {token for row in said(model, None, case) for token in row} == {letter}

"""The checks of sampling on transformers: a right sampler of another make, in three formats."""

import pytest

from refgen.conformance.judging.lab import Lab
from refgen.conformance.judging.verdicts import Finding, Verdict
from refgen.conformance.questions.sampling import checks
from refgen.conformance.subjects import transformers as adapter
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.protocol import About, RefusedError, SkippedError
from tests.sampled import dice_models


class Direct:
    """Asks the adapter's objects without a thread or a process."""

    def __init__(self, dtype, choices):
        self.about, self.loaded = About("transformers", dtype=dtype, choices=choices), {}

    def ask(self, op, model, request):
        """The answer, or the errors of protocol.py."""
        thing = self.loaded.setdefault(model, adapter.TransformersSubject(model, self.about.dtype))
        try:
            return checked(op, request, {"rows": getattr(thing, op)(**request)})
        except NotImplementedError as error:
            raise SkippedError(str(error)) from None
        except (ValueError, RuntimeError) as error:
            raise RefusedError(str(error)) from None


def verdict(check, lab):
    try:
        return check.run(lab)
    except SkippedError as error:
        return Finding(Verdict.SKIP, str(error))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return dice_models(tmp_path_factory.mktemp("dice"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_transformers_samples_by_the_law(models, dtype, figures):
    """SAMP-01 to SAMP-05. Nothing fails, and the stream is torch's, token for token; numbers of one's own it does not take."""
    lab = Lab(Direct(dtype, adapter.CHOICES | {"random_numbers": "torch_mt19937"}), models)
    found = {each.id: verdict(each, lab) for each in checks(lab)}
    odd = {name: each for name, each in found.items() if each.verdict is not Verdict.PASS}
    assert {name: each.verdict for name, each in odd.items()} == {
        "sampling.temperature.zero": Verdict.CHOICE,
        "sampling.uniforms.plain": Verdict.SKIP,
        "sampling.uniforms.all": Verdict.SKIP,
    }
    tokens = sum(each.facts.get("tokens", 0) for each in found.values())
    figures.append(f"transformers in {dtype}: {len(found)} checks of sampling, {tokens:,} tokens, none fails")

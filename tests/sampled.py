"""A subject that samples by a known sampler, right or with a planted fault: for tests of the checks of sampling."""

from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from refgen import checkpoints
from refgen.cache import Cache
from refgen.conformance.judging.lab import Lab
from refgen.conformance.planted.sampler_faults import SamplerFault, conventions, independent
from refgen.conformance.questions.probes import PROBES, write
from refgen.conformance.subjects.border import checked
from refgen.conformance.subjects.protocol import About, SkippedError
from refgen.engines import find_engine
from refgen.model import softmax

RIGHT = SamplerFault("none", "nothing is wrong", (), lambda chain, settings: chain)
REQUEST = {"input_ids", "max_new_tokens", "seed", "num_return_sequences", "do_sample", "eos_token_id", "uniforms"}


def by_convention(choices):
    """The sampler of somebody who takes these options."""
    return SamplerFault("convention", "other options", (), conventions(choices))


class Sampled:
    """Draws by inverse CDF (SAMP-10). `noise` is the error of its logits; without `n` or `seeds` it has no such setting."""

    def __init__(
        self, fault=RIGHT, numbers=independent, choices=None, noise=0.0, dtype="float32", n=True, seeds=True, loads=True
    ):
        self.about = About("sampled", dtype=dtype, choices=choices or {}, loads=loads)
        self.fault, self.numbers, self.noise, self.n, self.seeds = fault, numbers, noise, n, seeds
        self.requests = 0
        self.networks = {}

    def close(self):
        """Nothing to do."""

    def ask(self, op, model, request):
        """Only `generate`."""
        self.requests += 1
        if (not self.n and "num_return_sequences" in request) or (not self.seeds and "seed" in request):
            raise SkippedError("has no such setting")
        settings = {name: value for name, value in request.items() if name not in REQUEST}
        B, T = request.get("num_return_sequences", 1), request["max_new_tokens"]
        ids = np.repeat(np.array(request["input_ids"]), B, axis=0)
        u = request.get("uniforms")
        u = self.numbers(request.get("seed", self.requests), self.requests, B, T) if u is None else np.array(u)
        return checked(op, request, {"rows": self.rows(model, ids, settings, u)})

    def rows(self, model, ids, settings, u):
        """The new ids of every row, drawn by the numbers `u` `[B T]`."""
        if model not in self.networks:
            self.networks[model] = find_engine("numpy")(checkpoints.load(model, "float64"))
        network, width, cache = self.networks[model], ids.shape[1], Cache()
        dice = network.forward(ids[:1, -1:])[:, -1] if model.name.startswith("dice") else None
        with np.errstate(all="ignore"):
            if dice is not None and "repetition_penalty" not in settings:
                chances = softmax(self.fault.scores(settings, ids[:1], dice))[0]
                cumulative = chances.cumsum()
                return np.searchsorted(cumulative, u * cumulative[-1], side="right").tolist()
            for t in range(u.shape[1]):
                logits = (
                    network.forward(ids[:, len(cache) :], cache=cache, logits_to_keep=1)[:, -1]
                    if dice is None
                    else np.repeat(dice, len(ids), axis=0)
                )
                logits = logits + self.noise * np.random.default_rng([self.requests, t]).normal(size=logits.shape)
                chances = softmax(self.fault.scores(settings, ids, logits, width))
                cumulative = chances.cumsum(axis=1)
                ids = np.column_stack([ids, (cumulative <= u[:, t : t + 1] * cumulative[:, -1:]).sum(axis=1)])
        return ids[:, width:].tolist()


def dice_models(folder=None):
    """The folders of all dice."""
    folder = Path(folder or mkdtemp())
    models = {name: folder / name for name in PROBES if name.startswith("dice")}
    for name, place in models.items():
        write(PROBES[name](), place)
    return models


def lab_of(models, seed=0, **subject):
    """A lab with such a subject."""
    return Lab(Sampled(**subject), models, seed)

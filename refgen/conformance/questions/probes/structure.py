"""Probes of how the parts are put together: the order of layers, the direction of matrices, the output's own matrix.

Axes    V tokens, N positions, C = n_embd.
"""

import numpy as np

from refgen.conformance.questions.probes.memory import LOUD, finished, looking
from refgen.conformance.questions.probes.probe import (
    LETTERS,
    Probe,
    balance,
    blank,
    configured,
    ids,
    parts_of,
    says,
    special,
    words,
)
from refgen.conformance.questions.probes.tables import looked_up


def successor() -> Probe:
    """The next letter of the alphabet: attention looks at itself, and c_proj turns each letter into the next.

    Its square matrix is a cycle, so transposed it gives the letter before; a query that does not see itself continues
    another letter.
    """
    V, N, C = 12, 14, 32
    config = configured(V, N, C)
    tensors = blank(config)
    token, place, ballast = np.split(np.arange(C), [V, V + N])
    tensors["wte.weight"][:, token] = np.eye(V)
    tensors["wpe.weight"][:, place] = np.eye(N)
    balance(tensors["wpe.weight"], ballast, 1 / 4)
    looking(tensors, 0, place, 0)
    _, _, v, proj = parts_of(tensors, 0)
    v[token, token] = 1
    for t in range(V - 1):
        proj[token[t], token[(t + 1) % (V - 1)]] = LOUD / 2
    finished(tensors, token)
    letters = words(LETTERS[: V - 1])
    probe = Probe("successor", "The next letter of the alphabet.", ("FWD-06", "FWD-09"), config, tensors, letters,
                  special(config))  # fmt: skip
    return probe.asked(
        says("alphabet", ["FWD-06"], "a square matrix is transposed", [ids("C")], [ids("DEFGHIJKA")],
             kills=("proj-transposed", "key-value-swapped")),
        says("itself", ["FWD-09"], "a query does not see its own key", [ids("AGD")], [ids("EFGHI")],
             kills=("misses-itself", "proj-transposed")),
        says("padded", ["PAD-05"], "padding is seen", [ids("AGDB"), ids("F"), ids("KC")],
             [ids("CDEF"), ids("GHIJ"), ids("DEFG")], kills=("misses-itself",)),
    )  # fmt: skip


def layers() -> Probe:
    """M after any letter: layer i turns the i-th letter into the next one, so twelve layers in their order reach M.

    A program that sorts them as text (0, 1, 10, 11, 2 and so on) gets to K. One that leaves the last out gets to L.
    """
    V, N, C, L = 14, 32, 16, 12
    config = configured(V, N, C, n_layer=L)
    tensors = blank(config)
    tensors["wte.weight"][:, :V] = np.eye(V)
    for i in range(L):
        row = looked_up(tensors, i, 0, i, 4)  # LayerNorm makes 3.9 of 1 and -0.3 of 0
        row[[i, i + 1]] = -1 / 8, 1 / 8
    tensors["ln_f.weight"][:] = 8
    probe = Probe("layers", "M, after twelve layers that each go one letter on.", ("FWD-03", "CKPT-01"), config, tensors,
                  words(LETTERS[: V - 1]), special(config))  # fmt: skip
    return probe.asked(
        says("all", ["FWD-03"], "a layer is missing, or layers are in another order", [ids("A"), ids("CA"), ids("AEGB")],
             [ids("MMM")] * 3, kills=("layers-sorted-as-text", "last-layer-missing")),
    )  # fmt: skip


def untied() -> Probe:
    """The next letter of the alphabet, by its own output matrix. Tied to the embedding, it repeats the letter."""
    V, N, C = 12, 32, 32
    config = configured(V, N, C, tie_word_embeddings=False)
    tensors = blank(config)
    tensors["wte.weight"][:, :V] = np.eye(V)
    tensors["lm_head.weight"][(np.arange(V - 1) + 1) % (V - 1), np.arange(V - 1)] = 1
    tensors["ln_f.weight"][:] = 8
    probe = Probe("untied", "The next letter of the alphabet, by a head that is not the embedding.", ("FWD-17", "CKPT-04"),
                  config, tensors, words(LETTERS[: V - 1]), special(config))  # fmt: skip
    return probe.asked(
        says("alphabet", ["FWD-17"], "the head is the embedding though it should not be", [ids("C"), ids("AH")],
             [ids("DEFGH"), ids("IJKAB")], kills=("head-tied",)),
    )  # fmt: skip

"""The sections of the benchmark. A section is a function from a `Bench` to tables; `SECTIONS` lists them in the order
of the report.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from refgen.bench.process import Worker, environment
from refgen.bench.rounds import Series, Taken, Turn, agreement, take_turns
from refgen.bench.subjects import BANDWIDTH, LOOKUP, NO_CACHE, PRICED, REFGEN, Subject
from refgen.bench.weights import bytes_per_token, cache_bytes_per_position, copying_folder
from refgen.checkpoints.safetensors import WEIGHTS
from refgen.config import GPT2Config
from refgen.errors import BenchError

# --- What a table holds -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """One work, done by several subjects in every round.

    `values` are seconds, or bytes if the unit is MiB; `unit` says how they are shown, `work` how many tokens each
    stands for. `reads` is the read bandwidth measured in each round, in bytes a second, `bytes_read` what a token reads.
    """

    section: str
    model: str
    title: str
    unit: str
    work: int
    base: str
    values: dict[str, list[float]]
    same: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reads: list[float] = field(default_factory=list)
    bytes_read: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sizes:
    """How much work there is."""

    prompt: int
    new: int
    prefill: int
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    context_steps: int  # tokens whose times are taken at each context length
    memory: int  # positions
    lookup_pattern: int
    lookup_new: int
    prompts: int  # of the lookup

    @classmethod
    def of(cls, config: GPT2Config, prompts: int, *, quick: bool) -> "Sizes":
        """As far as the model's context goes."""
        N = config.n_positions
        prompt = min(16, N // 4)
        pattern = min(12, N // 16)
        contexts = (64, 256) if quick else (64, 256, 1023)
        return cls(
            prompt=prompt,
            new=min(16 if quick else 64, N - prompt),
            prefill=min(64 if quick else 512, N // 2),
            batches=(8,) if quick else (8, 32),
            contexts=tuple(sorted({min(each, N - 1) for each in contexts})),
            context_steps=min(4 if quick else 16, N // 8),
            memory=min(64, N),
            lookup_pattern=pattern,
            lookup_new=min(16 if quick else 32, N - 4 * pattern),
            prompts=min(5, prompts) if quick else prompts,
        )


# --- What sections work with ------------------------------------------------------------------------------


@dataclass
class Bench:
    """One model and all subjects measured on it. Workers start when first needed and stay until `close`."""

    model: str
    folder: Path
    config: GPT2Config
    sizes: Sizes
    peers: Sequence[Subject]
    rounds: int
    threads: int
    pause: float = 0.1
    progress: Callable[[str], None] = lambda _: None
    versions: dict[str, str] = field(default_factory=dict)
    built_in: bool = False
    _workers: dict[str, Worker] = field(default_factory=dict)
    _paths: dict[Path, str] = field(default_factory=dict)

    def path(self, subject: Subject) -> str:
        """The path that the subject loads, which its own worker makes the first time."""
        if subject.adapter not in self._paths:
            with Worker(subject.name, subject.adapter, self.threads) as worker:
                self._paths[subject.adapter] = worker.ask("prepare", folder=str(self.folder))["answer"]
        return self._paths[subject.adapter]

    def fresh(self, subject: Subject) -> tuple[Worker, float]:
        """A worker that has just loaded the model; and when its process began."""
        path = self.path(subject)
        start = perf_counter()
        worker = Worker(subject.name, subject.adapter, self.threads)
        try:
            loaded = worker.ask("load", path=path, threads=self.threads, arguments=dict(subject.load))
        except BaseException:
            worker.close(kill=True)
            raise
        self.versions[subject.name] = loaded["answer"]
        return worker, start

    def worker(self, subject: Subject) -> Worker:
        """The worker of a subject that stays."""
        if subject.name not in self._workers:
            self._workers[subject.name], _ = self.fresh(subject)
        return self._workers[subject.name]

    def ask(self, subject: Subject, worker: Worker, ids: list[list[int]], count: int, **more: Any) -> dict[str, Any]:
        """New tokens from a worker."""
        try:
            return worker.ask(
                "generate", ids=ids, count=count, settings=dict(subject.settings), **{"ticks": False} | more
            )
        except BenchError:
            self._workers.pop(subject.name, None)
            worker.close(kill=True)
            raise

    def turn(self, subject: Subject, prompts: Callable[[int], list[list[int]]], count: int) -> Turn:
        """`count` tokens after the prompts of the round."""

        def take(number: int) -> Taken:
            answer = self.ask(subject, self.worker(subject), prompts(number), count)
            return Taken(answer["seconds"], answer["answer"])

        return take

    def ids(self, rows: int, length: int, seed: int = 0) -> list[list[int]]:
        """Random prompts."""
        ids: list[list[int]] = np.random.default_rng(seed).integers(0, self.config.vocab_size, (rows, length)).tolist()
        return ids

    def rate(self, subjects: Sequence[Subject], rows: int, prompt: int, new: int) -> Series:
        """One work for all of them."""
        ids = self.ids(rows, prompt)
        turns = {subject.name: self.turn(subject, lambda _: ids, new) for subject in subjects}
        return take_turns(turns, self.rounds, self.pause, self.progress)

    def table(self, section: str, title: str, series: Series, base: Subject = REFGEN, **more: Any) -> Table:
        """A table of a series of seconds."""
        told: dict[str, Any] = {"unit": "tokens/s", "work": 1} | more
        return Table(
            section=section,
            model=self.model,
            title=title,
            base=base.name,
            values=series.values,
            same=agreement(series.tokens, base.name),
            failed=series.failed,
            **told,
        )

    def close(self) -> None:
        """Ends all workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


# --- The sections -----------------------------------------------------------------------------------------


def decode(bench: Bench) -> list[Table]:
    """One row, and the share of the machine's read bandwidth that it comes to."""
    prompt, new = bench.sizes.prompt, bench.sizes.new
    ids = bench.ids(1, prompt)
    turns = {each.name: bench.turn(each, lambda _: ids, new) for each in (REFGEN, *bench.peers)}
    if not bench.built_in:  # its weights lie in the cache anyhow
        turns[BANDWIDTH.name] = lambda _: Taken(bench.worker(BANDWIDTH).ask("read")["answer"])
    series = take_turns(turns, bench.rounds, bench.pause, bench.progress)
    title = f"Decoding: 1 row, prompt of {prompt}, {new} new tokens"
    reads = series.values.pop(BANDWIDTH.name, [])
    series.tokens.pop(BANDWIDTH.name, None)
    return [
        bench.table(
            "decode", title, series, work=new, reads=reads, bytes_read=bytes_per_token(bench.config) if reads else 0
        )
    ]


def prefill(bench: Bench) -> list[Table]:
    """A long prompt and one new token."""
    length = bench.sizes.prefill
    series = bench.rate((REFGEN, *bench.peers), 1, length, 1)
    return [bench.table("prefill", f"Prefill: prompt of {length}, 1 new token", series, work=length)]


def batch(bench: Bench) -> list[Table]:
    """Several rows at once."""
    prompt, new = bench.sizes.prompt, bench.sizes.new
    return [
        bench.table(
            "batch",
            f"Batch: {rows} rows, prompts of {prompt}, {new} new tokens each",
            bench.rate((REFGEN, *bench.peers), rows, prompt, new),
            work=rows * new,
        )
        for rows in bench.sizes.batches
    ]


def start(bench: Bench) -> list[Table]:
    """From the start of a process to its first token; of the built-in model, a whole command."""
    if bench.built_in:
        return [command(bench)]
    ids = bench.ids(1, bench.sizes.prompt)

    def turn(subject: Subject) -> Turn:
        def take(number: int) -> Taken:  # noqa: ARG001
            worker, began = bench.fresh(subject)
            with worker:
                tokens = bench.ask(subject, worker, ids, 1)["answer"]
                return Taken(perf_counter() - began, tokens)

        return take

    turns = {subject.name: turn(subject) for subject in (REFGEN, *bench.peers)}
    series = take_turns(turns, bench.rounds, bench.pause, bench.progress)
    title = f"Start: from a new process to the first token after a prompt of {bench.sizes.prompt}, files in memory"
    return [bench.table("start", title, series, unit="s")]


def command(bench: Bench) -> Table:
    """`refgen generate` beside the least that a program with NumPy can take."""
    numpy = Subject("python -c 'import numpy'")
    commands = {
        numpy.name: ["-c", "import numpy"],
        "refgen generate": ["-m", "refgen", "generate", "ROMEO:", "--max-new-tokens", "50"],
    }

    def turn(words: list[str]) -> Turn:
        def take(number: int) -> Taken:  # noqa: ARG001
            began = perf_counter()
            done = subprocess.run(  # noqa: S603 - this very interpreter
                [sys.executable, *words],
                env=environment(bench.threads),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            if done.returncode:
                raise BenchError(" ".join(words), f"ended with exit code {done.returncode}")
            return Taken(perf_counter() - began)

        return take

    turns = {name: turn(words) for name, words in commands.items()}
    series = take_turns(turns, bench.rounds, bench.pause, bench.progress)
    title = 'Start: refgen generate "ROMEO:" --max-new-tokens 50, the whole command'
    return bench.table("start", title, series, base=numpy, unit="s")


def memory(bench: Bench) -> list[Table]:
    """The most resident memory of a process that loads and generates, beside the size of its weights."""
    positions, prompt = bench.sizes.memory, bench.sizes.prompt
    ids = bench.ids(1, prompt)
    weights = Subject("the weights' file")
    size = float((bench.folder / WEIGHTS).stat().st_size)

    def turn(subject: Subject) -> Turn:
        def take(number: int) -> Taken:  # noqa: ARG001
            worker, _ = bench.fresh(subject)
            with worker:
                answer = bench.ask(subject, worker, ids, positions - prompt)
                return Taken(float(answer["peak"]), answer["answer"])

        return take

    turns: dict[str, Turn] = {weights.name: lambda _: Taken(size)}
    turns |= {subject.name: turn(subject) for subject in (REFGEN, *bench.peers)}
    series = take_turns(turns, min(bench.rounds, 3), bench.pause, bench.progress)
    tokens = agreement(series.tokens, REFGEN.name)
    title = f"Memory: the most a process holds, 1 row, {positions} positions"
    grows = cache_bytes_per_position(bench.config)
    note = f"Keys and values: {grows:,} bytes for each further position of a row, computed from the shapes."
    table = bench.table("memory", title, series, base=weights, unit="MiB", notes=[note])
    table.same.update(tokens)
    return [table]


def context(bench: Bench) -> list[Table]:
    """The cost of one more token after few positions and after many."""
    tables = []
    for positions in bench.sizes.contexts:
        steps = min(bench.sizes.context_steps, positions - 1)
        ids = bench.ids(1, positions - steps)

        def turn(subject: Subject, ids: list[list[int]] = ids, steps: int = steps) -> Turn:
            def take(number: int) -> Taken:  # noqa: ARG001
                answer = bench.ask(subject, bench.worker(subject), ids, steps + 1, ticks=True)
                times = answer["ticks"]
                if len(times) != steps + 1:
                    raise BenchError(subject.name, f"gave the times of {len(times)} steps of {steps + 1}")
                return Taken(median(after - before for before, after in pairwise(times)), answer["answer"])

            return take

        turns = {subject.name: turn(subject) for subject in (REFGEN, *bench.peers)}
        series = take_turns(turns, bench.rounds, bench.pause, bench.progress)
        title = f"Context: one more token after {positions} positions"
        tables.append(bench.table("context", title, series, unit="ms/token"))
    return tables


def lookup(bench: Bench) -> list[Table]:
    """Drafts by prompt lookup on texts that repeat themselves.

    Random weights do not go on as a text began. Weights of their shape that copy do: there every draft is right.
    """
    n, width = bench.sizes.prompts, bench.sizes.lookup_pattern
    if bench.built_in:
        by_chance = replace(REFGEN, settings={"do_sample": True, "seed": 1})
        said = bench.ask(by_chance, bench.worker(REFGEN), bench.ids(n, 1, seed=1), width)["answer"]
        return [drafts(bench, said)]
    folder = copying_folder(bench.config, width, bench.folder.parent)
    model_name = bench.model.replace("random", "copying")
    with closing(replace(bench, model=model_name, folder=folder, _workers={}, _paths={})) as copying:
        return [drafts(copying, bench.ids(n, width, seed=1))]


def drafts(bench: Bench, patterns: list[list[int]]) -> Table:
    """With and without drafts, prompt by prompt, after a pattern that occurs four times."""
    n, new = len(patterns), bench.sizes.lookup_new
    prompts = [pattern * 4 for pattern in patterns]
    turns = {each.name: bench.turn(each, lambda i: [prompts[max(i - 1, 0)]], new) for each in (REFGEN, LOOKUP)}
    series = take_turns(turns, n, 0.0, bench.progress)
    title = f"Prompt lookup: {n} prompts of {len(prompts[0])} that repeat themselves, {new} new tokens each"
    return bench.table("lookup", title, series, work=new)


def cache(bench: Bench) -> list[Table]:
    """Everything computed anew for each token, as the shortest programs do it."""
    prompt, new = bench.sizes.prompt, bench.sizes.new
    title = f"No cache: 1 row, prompt of {prompt}, {new} new tokens"
    return [bench.table("cache", title, bench.rate((REFGEN, NO_CACHE), 1, prompt, new), work=new)]


def price(bench: Bench) -> list[Table]:
    """refgen's other ways to compute."""
    prompt, new = bench.sizes.prompt, bench.sizes.new
    title = f"Price: 1 row, prompt of {prompt}, {new} new tokens"
    return [bench.table("price", title, bench.rate((REFGEN, *PRICED), 1, prompt, new), work=new)]


Section = Callable[[Bench], list[Table]]
SECTIONS: Mapping[str, Section] = {
    "decode": decode,
    "prefill": prefill,
    "batch": batch,
    "start": start,
    "memory": memory,
    "context": context,
    "lookup": lookup,
    "cache": cache,
    "price": price,
}

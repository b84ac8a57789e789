"""The benchmark: refgen and its peers, taking turns. `refgen bench` runs it; docs/benchmark.md says what it measures.

    weights     a random GPT-2 of a given shape, as a Hugging Face folder; to_*.py make each peer's own format of it
    subjects    who takes part, with what arguments; adapters/ has one file a library
    worker      the process a subject runs in; process is the parent's end of the wire
    rounds      turns, order, medians, ratios
    sections    what is measured; report, plot and JSON show it
    machine     what it ran on

Nothing here is imported by `import refgen`.
"""

"""Where the faults that cases are about were seen: public reports, by the case that catches them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from refgen.conformance.questions.cases import Case

SEEN_IN: Mapping[str, tuple[str, ...]] = {
    "tokenizer.decode.spaced-marks": ("huggingface/transformers#21119", "huggingface/tokenizers#1164"),
    "tokenizer.encode.first-word": ("huggingface/transformers#42481",),
    "tokenizer.encode.end-inside": ("huggingface/tokenizers#1347",),
    "tokenizer.encode.two-spaces": ("ohdearquant/lattice#330", "ggml-org/llama.cpp#6809"),
    "tokenizer.encode.contractions": ("latitudegames/GPT-3-Encoder#5", "tiktoken-go/tokenizer#24"),
    "tokenizer.encode.digits": ("asyml/texar-pytorch#313", "ggml-org/llama.cpp#3502"),
    "tokenizer.decode.chinese": ("NVIDIA/Megatron-LM#4126", "antonellof/ferrox#124"),
    "forward.net-plain.full": ("nntile/nntile#370", "kyutai-labs/pocket-tts#278"),
    "forward.net-plain.padded": ("TransformerLensOrg/TransformerLens#1609", "huggingface/transformers#21080"),
    "forward.net-plain.cached": ("microsoft/onnxruntime#12156", "rasbt/LLMs-from-scratch#1048"),
    "forward.net-epsilon.full": ("keras-team/keras-hub#642", "tracel-ai/burn#2185"),
    "forward.net-no-scale.full": ("vllm-project/vllm#36637", "huggingface/transformers#44380"),
    "forward.net-own-head.full": ("NVIDIA/TensorRT-LLM#3324", "huggingface/transformers#42612"),
    "forward.rejects.context": ("jax-ml/jax#4455", "huggingface/transformers#33903"),
    "process.repetition.both-signs": ("huggingface/transformers#2302",),
    "process.repetition.once": ("ohdearquant/lattice#312", "huggingface/transformers.js#1062"),
    "process.greedy.knows-no-chance": ("ggml-org/llama.cpp#9897",),
    "process.temperature.half": ("huggingface/transformers.js#1422",),
    "process.temperature.cold": ("vllm-project/vllm#2937",),
    "process.top_k.three": ("karpathy/minGPT#10",),
    "process.top_k.one": ("kingoflolz/mesh-transformer-jax#164",),
    "process.top_k.zero": ("abetlen/llama-cpp-python#220", "karpathy/nanochat#466"),
    "process.top_k.default": ("huggingface/transformers#38549",),
    "process.ties.top_k": ("vllm-project/vllm#15478",),
    "process.ties.top_p": ("sgl-project/sglang#4876",),
    "process.top_p.most": ("dmlc/gluon-nlp#1481", "lucidrains/PaLM-rlhf-pytorch#60"),
    "process.top_p.tiny": ("huggingface/transformers#19839",),
    "process.min_p.tenth": ("sgl-project/sglang-jax#1563",),
    "process.order.temperature-then-top_p": ("sgl-project/sglang-jax#289", "mlc-ai/mlc-llm#951"),
    "process.order.top_k-then-top_p": ("sgl-project/sglang#36173",),
    "process.order.temperature-then-min_p": ("vllm-project/vllm-metal#728",),
    "process.bad_words.longer-than-text": ("huggingface/transformers.js#1278",),
    "process.bad_words.not-begun": ("tenstorrent/tt-xla#3482",),
    "process.ngram.one": ("NVIDIA/TensorRT-LLM#3150",),
    "process.min_new_tokens.kept": ("NVIDIA/TensorRT-LLM#12358", "huggingface/transformers#20814"),
    "process.bias.added": ("sgl-project/sglang#3059", "Zyphra/Zonos#77"),
    "loop.rejects.long-prompt": ("ollama/ollama#299",),
    "loop.rejects.no-tokens": ("huggingface/transformers#28579",),
}


def with_reports(cases: Iterable[Case]) -> Iterator[Case]:
    """The same cases with their reports."""
    for case in cases:
        yield replace(case, seen_in=SEEN_IN.get(case.id, ()))

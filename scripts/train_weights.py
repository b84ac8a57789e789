"""Train the GPT-2 that ships with refgen, `weights/shakespeare/`, from the text of tinyshakespeare.

    python scripts/train_weights.py --text input.txt --out weights/shakespeare

Needs the `test` extra (torch, transformers). The tokenizer comes out the same every time; the weights only with
`--bpe-dropout 0`, because tokenizers draws that dropout from a generator that cannot be seeded. Neither the tokenizer
nor the model is trained on the last tenth of the text. The held-out loss is in nats per *character* of it, so it can be
compared with nanoGPT's numbers.
"""

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

END = "<|endoftext|>"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, apart from the text."""

    vocab_size: int = 1024
    n_positions: int = 256
    n_embd: int = 128
    n_layer: int = 4
    n_head: int = 4
    dropout: float = 0.1
    bpe_dropout: float = 0.05
    batch_size: int = 24
    steps: int = 2400
    warmup: int = 100
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.1
    average_decay: float = 0.995
    seed: int = 1337
    threads: int = 2


def train_tokenizer(speeches: list[str], vocab_size: int) -> Tokenizer:
    """GPT-2's byte-level BPE, learned from `speeches`; `<|endoftext|>` is the last id, as in GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(speeches, trainer)
    tokenizer.add_special_tokens([AddedToken(END, normalized=False, special=True)])
    return tokenizer


def encode(tokenizer: Tokenizer, speeches: list[str], dropout: float | None = None) -> np.ndarray:
    """One stream of ids `[N]`: every speech after an `<|endoftext|>`, one more at the end."""
    tokenizer.model.dropout = dropout
    end = tokenizer.token_to_id(END)
    stream = [end]
    for encoding in tokenizer.encode_batch(speeches):
        stream += [*encoding.ids, end]
    tokenizer.model.dropout = None
    return np.array(stream)


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, ids: np.ndarray, n_characters: int) -> float:
    """Nats per character of a stream of ids; every id is predicted once, from at least half a window."""
    model.eval()
    width = model.config.n_positions
    nats, done = 0.0, 1
    for start in range(0, len(ids) - 1, width // 2):
        window = torch.from_numpy(ids[start : start + width + 1])
        logits = model(window[None, :-1]).logits[0]
        new = min(start + width + 1, len(ids)) - done
        nats += float(torch.nn.functional.cross_entropy(logits[-new:], window[-new:], reduction="sum"))
        done += new
        if done == len(ids):
            break
    model.train()
    return nats / n_characters


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    recipe: Recipe, tokenizer: Tokenizer, training: list[str], held_out: list[str], n_characters: int
) -> tuple[GPT2LMHeadModel, float, float]:
    """Returns the weights averaged over the last steps, which beat the last step's."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    config = GPT2Config(
        vocab_size=recipe.vocab_size, n_positions=recipe.n_positions, n_embd=recipe.n_embd,
        n_layer=recipe.n_layer, n_head=recipe.n_head, bos_token_id=recipe.vocab_size - 1,
        eos_token_id=recipe.vocab_size - 1, embd_pdrop=recipe.dropout, resid_pdrop=recipe.dropout,
        attn_pdrop=0.0,  # dropout on the attention pattern costs as much time as all the rest
    )  # fmt: skip
    model, average = GPT2LMHeadModel(config), GPT2LMHeadModel(config)
    average.load_state_dict(model.state_dict())
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    held_out_ids = encode(tokenizer, held_out)
    steps_per_epoch = len(encode(tokenizer, training)) // (recipe.batch_size * recipe.n_positions)
    started = time.monotonic()
    for step in range(recipe.steps):
        if step % steps_per_epoch == 0:  # new epoch: speeches in a new order, cut into tokens anew
            order = rng.permutation(-(-len(training) // 8))
            shuffled = [speech for i in order for speech in training[8 * i : 8 * i + 8]]
            stream = torch.from_numpy(encode(tokenizer, shuffled, recipe.bpe_dropout))
        starts = rng.integers(0, len(stream) - recipe.n_positions - 1, recipe.batch_size)
        batch = torch.stack([stream[s : s + recipe.n_positions + 1] for s in starts])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1 - min(recipe.average_decay, (step + 1) / (step + 10)))
        if step % 100 == 99:
            held = held_out_loss(average, held_out_ids, n_characters)
            seconds = time.monotonic() - started
            print(
                f"step {step + 1}  {loss.item():.3f} nats/token  held out {held:.4f} nats/char  {seconds:.0f} s",
                flush=True,
            )
    return average, held_out_loss(average, held_out_ids, n_characters), time.monotonic() - started


def write(out: Path, model: GPT2LMHeadModel, tokenizer: Tokenizer, facts: dict[str, Any]) -> None:
    """The Hugging Face folder, and `training.json` with how it was made."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END, "unk_token": END,
        "add_prefix_space": False, "model_max_length": model.config.n_positions,
    }  # fmt: skip
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    facts["sha256"] = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.glob("*")) if p.name != "training.json"
    }
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")


def main() -> None:
    """Command line: `--text`, `--out`, and every field of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="tinyshakespeare's input.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    for name, value in asdict(Recipe()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    options = vars(parser.parse_args())
    text_path, out = options.pop("text"), options.pop("out")
    recipe = Recipe(**options)
    torch.set_num_threads(recipe.threads)

    text = text_path.read_text()
    cut = text.index("\n\n", len(text) * 9 // 10) + 2
    training, held_out = text[:cut].strip().split("\n\n"), text[cut:].strip().split("\n\n")
    tokenizer = train_tokenizer(training, recipe.vocab_size)
    model, loss, seconds = train(recipe, tokenizer, training, held_out, len(text) - cut)
    facts = {
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "held_out_from_character": cut,
        "held_out_nats_per_character": round(loss, 4),
        "training_seconds": round(seconds),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": asdict(recipe),
        "torch": torch.__version__,
    }
    write(out, model, tokenizer, facts)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()

"""The same network in transformers: made from the same tensors, so that nothing but the code differs."""

from dataclasses import asdict

import numpy as np
import torch
import transformers
from transformers import GPT2LMHeadModel as TorchGPT2

import refgen
from refgen.checkpoints import disassemble

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


def torch_twin(model: refgen.GPT2LMHeadModel) -> TorchGPT2:
    """transformers' GPT-2 with `model`'s configuration, weights and dtype, in evaluation mode."""
    switches = {name: value for name, value in asdict(model.config).items() if name != "other"}
    twin = TorchGPT2(transformers.GPT2Config(**switches)).to(torch.from_numpy(np.zeros(0, model.dtype)).dtype)
    tensors = {f"transformer.{name}": torch.tensor(array) for name, array in disassemble(model.gpt2).items()}
    head = tensors.pop("transformer.lm_head.weight", tensors["transformer.wte.weight"])
    twin.load_state_dict(tensors | {"lm_head.weight": head}, strict=True)
    return twin.eval()

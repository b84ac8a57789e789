"""A released server: llama.cpp's, inside xllamacpp, with the built-in model in float32. Its own process, as it cannot be stopped.

python llamacpp_server.py PORT FOLDER GGUF
"""

import sys
import threading
from pathlib import Path

import xllamacpp

from refgen.bench.to_gguf import words_of, write


def serve(port: int, folder: Path, path: Path) -> None:
    """Writes the GGUF file and serves it, four requests at a time, each with the model's whole context."""
    write(folder, path, words_of(folder))
    params = xllamacpp.CommonParams()
    params.model.path, params.port, params.hostnames = str(path), port, ["127.0.0.1"]
    params.n_parallel, params.n_ctx = 4, 4 * 256
    params.warmup = params.fit_params = False
    params.verbosity = 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

"""Draws tokenizer folders, reads each with refgen and with transformers, and counts the results.

    python scripts/compare_tokenizer_folders.py --folders 2000 --seed 1

Each folder has a GPT-2 vocabulary in one or two forms, and any of the files that can name special tokens. Both libraries
read it, and their ids, names, texts and settings are compared. Then both save it and read it again. The last line counts
differences that docs/differences.md does not name. The exit code is 1 if there are any.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.cross.tokenizer_folders import UNEXPLAINED, Folder, folders, ids, texts, verdict, write


def count(number: int, start: int, place: Path) -> Counter[str]:
    """The verdicts on `number` folders drawn from the seed `start`, written below `place`."""
    verdicts: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=number,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(folders(), st.lists(texts, min_size=3, max_size=3), st.lists(ids, min_size=2, max_size=2))
    def draw(files: Folder, some_texts: list[str], rows: list[list[int]]) -> None:
        found = verdict(write(place / str(verdicts.total()), files), files, some_texts, rows)
        if found.startswith(UNEXPLAINED):
            print(found, file=sys.stderr)
            found = UNEXPLAINED
        verdicts[found] += 1

    draw()
    return verdicts


@contextmanager
def silent_library() -> Iterator[None]:
    """Drops what the tokenizers library writes to the standard output past Python, about flags that it does not know."""
    with tempfile.TemporaryFile() as nowhere:
        ours = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(ours, 1)
            os.close(ours)


def main() -> int:
    """Prints how many folders have which verdict, the most frequent first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folders", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place, silent_library():
        verdicts = count(options.folders, options.seed, Path(place))
    unexplained = verdicts.pop(UNEXPLAINED, 0)
    print(f"{options.folders} folders, seed {options.seed}, {time.monotonic() - began:.0f} s")
    for found, times in verdicts.most_common():
        print(f"{times:6}  {found}")
    print(f"{unexplained:6}  differ, and docs/differences.md does not say why")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())

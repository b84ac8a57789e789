"""`refgen compare` as a shell sees it."""

import json

import pytest

from refgen.cli import main


@pytest.fixture
def judge(tmp_path, capsys):
    """Writes the file, runs the command: exit code, stdout, stderr."""

    def run(entries, *arguments):
        file = tmp_path / "tokens.json"
        file.write_text(json.dumps(entries))
        code = main(["compare", str(file), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.replace(str(file), "FILE")

    return run


def test_a_text(judge):
    """The sentence, one line a flip, and the verdict as exit code."""
    assert judge({"prompt_ids": [813, 25], "new_ids": [198, 40, 457], "eos_token_id": 1023}) == (
        0, "PASS: all 3 tokens are the best.\n", "",
    )  # fmt: skip
    code, out, err = judge({"prompt_ids": [813, 25], "new_ids": [198, 40, 458]}, "--dtype", "bfloat16")
    first, *flips = out.splitlines()
    assert (code, err) == (1, "")
    assert first == f"FAIL: {flips[0]}; rounding of bfloat16 explains 4. None of the known faults explains the tokens."


def test_rows_and_json(judge):
    """Several rows are judged each and together; JSON says the same with all numbers."""
    entries = {
        "prompt_ids": [[813, 25], [813, 25]],
        "new_ids": [[198, 40, 457], [198, 40, 458]],
        "eos_token_id": [1023],
    }
    code, out, _ = judge(entries)
    assert code == 1
    assert out.splitlines()[1] == "row 0: PASS: all 3 tokens are the best."
    code, out, _ = judge(entries, "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["tokens"]) == (1, "FAIL", 6)
    assert [row["verdict"] for row in told["rows"]] == ["PASS", "FAIL"]
    assert told["suspects"] == []
    assert told["sentence"].endswith("explains 4. None of the known faults explains the tokens.")
    (flip,) = told["flips"]
    assert (flip["step"], flip["token"], flip["best"]) == (2, 458, 457)
    assert flip["sigmas"] == pytest.approx(flip["margin"] / flip["sigma"])


@pytest.mark.parametrize(("entries", "message"), [
    ([1], "FILE: must hold a JSON object."),
    ({"new_ids": [1]}, "FILE: prompt_ids: must be a list of token ids, or a list of such lists, none of them empty."),
    ({"prompt_ids": [1], "new_ids": []}, "FILE: new_ids: must be a list of token ids"),
    ({"prompt_ids": [1], "new_ids": [True]}, "FILE: new_ids: must be a list of token ids"),
    ({"prompt_ids": [[1], [2]], "new_ids": [3]}, "FILE: 2 prompt_ids: must be as many as new_ids, 1."),
    ({"prompt_ids": [1], "new_ids": [3], "eos": 1}, "FILE: eos: is not an entry. There are prompt_ids, new_ids and eos_token_id."),
    ({"prompt_ids": [1], "new_ids": [3], "eos_token_id": "x"}, "FILE: eos_token_id: must be a list"),
    ({"prompt_ids": [1], "new_ids": [2000]}, "token ids of this model run from 0 to 1023"),
])  # fmt: skip
def test_what_is_refused(judge, entries, message):
    """One line with the file, the entry and what it must be."""
    code, out, err = judge(entries)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there(capsys):
    """The remedy says what the file holds."""
    assert main(["compare", "nowhere.json"]) == 2
    assert "nowhere.json: does not exist. It names prompt_ids and new_ids" in capsys.readouterr().err

"""Documents, docstrings and messages are written in plain English, as far as a program can tell."""

import pytest

from scripts import check_words


def test_there_is_nothing_to_rewrite():
    """No sentence is too long, and no phrase of the list is used."""
    assert list(check_words.hits(check_words.ROOT)) == []


@pytest.mark.parametrize(
    ("stiff", "plain"),
    [
        ("What your adapter has not, is listed.", "Operations that your adapter does not support are listed."),
        ("A level of that name is none.", "There is no level of that name."),
        ("A token behind the prompt.", "A token after the prompt."),
        ("Who skips everything is inconclusive.", "Who wrote this?"),
        ("It is for whoever declares it.", "It is for subjects that declare it."),
        ("What is right is not printed.", "What is a rule?"),
        ("It has a file of its own.", "It has its own file."),
        ("Add a test of yours.", "Add your own test."),
        ("The program was told to stop.", "The program was set to stop."),
        ("It ended when it was asked to greet.", "It ended before it answered."),
        ("A file if asked for.", "A file, if you pass a name."),
        ("The model says a token.", "The model produces a token."),
        ("This waits for ever.", "This waits forever."),
        ("It needs this: one; two.", "It needs this: one and two."),
        ("word " * 31 + "end.", "word " * 29 + "end."),
    ],
)
def test_a_stiff_sentence_is_found(stiff, plain):
    """Each pattern finds its planted sentence, and leaves the plain one alone."""
    assert list(check_words.faults(stiff.strip()))
    assert not list(check_words.faults(plain.strip()))


def test_prose_is_read_wherever_it_stands(tmp_path):
    """Markdown without code and tables; docstrings without examples; messages; nothing else."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "refgen").mkdir()
    (tmp_path / "docs" / "page.md").write_text(
        "# Behind a heading\n\nA token [behind](there.md) the\nprompt. Then `behind`.\n\n"
        "- an item behind another\n\n| behind |\n|---|\n\n```python\nbehind\n```\n\n"
        "Source: R. Since: 0.1. *Stacks*: a=b (behind)\n\n> quoted behind a line\n"
    )
    (tmp_path / "refgen" / "code.py").write_text(
        '"""Behind a module.\n\n    >>> "nothing stands behind this"\n    \'behind\'\n"""\n\n\n'
        'def function(name):\n    """Nothing to find."""\n'
        '    behind = "short behind"\n    words = "a list behind other words".split()\n'
        '    raise ValueError(f"the token behind {name} is"\n                     " not expected here")\n'
    )
    found = [(hit.place, hit.sentence) for hit in check_words.hits(tmp_path)]
    assert found == [
        ("docs/page.md:1", "Behind a heading"),
        ("docs/page.md:3", "A token behind the prompt."),
        ("docs/page.md:6", "an item behind another"),
        ("docs/page.md:17", "quoted behind a line"),
        ("refgen/code.py:1", "Behind a module."),
        ("refgen/code.py:12", "the token behind Value is not expected here"),
    ]

"""Cases of tokenizer: texts that break tokenizers, with the shipped model's ids."""

from collections.abc import Iterator

from refgen import AutoTokenizer
from refgen.conformance.questions.cases import Case
from refgen.tokenizer import Tokenizer

MODEL = "shakespeare"
END = "<|endoftext|>"
TEXTS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    # id, text, rule, why, faults it must kill
    ("words", "The quick brown fox.", "TOK-05", "every prompt is split like this", ()),
    ("first-word", "hello", "TOK-07", "a space put before the text changes its first token", ("add-prefix-space",)),
    ("space-before", " Hello", "TOK-07", "a leading space belongs to the first word", ("strip-text",)),
    ("space-behind", "Hello ", "TOK-03", "a trailing space is a separate token", ("strip-text",)),
    ("two-spaces", "two  spaces", "TOK-03", "all but the last of several spaces stand alone", ("spaces-greedy",)),
    ("many-spaces", "a      b", "TOK-03", "indented text has other ids", ("spaces-greedy",)),
    ("newlines", "\n\n\nb", "TOK-03", "empty lines have other ids", ()),
    ("indentation", "if x:\n    y = 1\n        z", "TOK-03", "code has other ids", ("spaces-greedy",)),
    ("tabs", "\tone\t\ttwo", "TOK-03", "tabs are white space like others", ()),
    ("contractions", "I'll we've 'tis I'LL don't they'd", "TOK-03", "only lower-case contractions are split off", ()),
    ("digits", "seq2seq 2024x12 3.14", "TOK-03", "letters and digits are separate pieces", ()),
    ("punctuation", "Wait... what?! (no) [yes] {so}", "TOK-03", "marks are separate pieces", ()),
    ("spaced-marks", " . , ! ?", "TOK-03", "ids of spaced marks are those of the text as it is", ()),
    ("case", "hElLo WORLD", "TOK-05", "case is kept", ("lower-case",)),
    ("accents", "déjà vu, naïve, Ærøskøbing", "TOK-04", "letters of two bytes", ("ascii-only",)),
    ("decomposed", "e\u0301 is not é", "TOK-04", "no normal form is made of the text", ("normal-form",)),
    ("cyrillic", "Быть или не быть", "TOK-04", "other scripts", ("ascii-only",)),
    ("chinese", "生存还是毁灭", "TOK-04", "characters of three bytes", ("ascii-only",)),
    ("emoji", "🎭 to be 👩\u200d👩\u200d👧 or 🇩🇰", "TOK-04", "characters of four bytes, and those that are joined", ("ascii-only",)),
    ("zero-width", "zero\u200bwidth\u00a0space", "TOK-03", "a no-break space is white space, a zero-width one is not", ()),
    ("controls", "bell\x07 null\x00 escape\x1b", "TOK-04", "control characters are bytes like others", ()),
    ("replacement", "\ufffd", "TOK-04", "U+FFFD in a text is a character", ()),
    ("long-word", "honorificabilitudinitatibus" * 3, "TOK-05", "long words are merged to the end", ()),
    ("repeated", "aaaaaaaaaaaaaaaaaaaaaaaa", "TOK-05", "equal pairs are merged from the left", ()),
    ("empty", "", "TOK-07", "nothing is nothing, not a begin token", ("adds-begin",)),
    ("end-token", END, "TOK-02", "the end token's text is the end token", ("special-as-text",)),
    ("end-inside", f"a{END}b", "TOK-02", "special tokens are found inside text", ("special-as-text",)),
    ("end-spaced", f" {END} ", "TOK-02", "spaces around a special token stay", ("special-strips",)),
    ("almost-end", "<|endoftext|", "TOK-02", "text that only begins like a special token is text", ()),
    ("speech", "ROMEO:\nO, speak again, bright angel!", "TOK-05", "the text that the model knows", ()),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Each text to ids and back, and ids that are not text."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for name, text, rule, why, kills in TEXTS:
        ids = tokenizer.encode(text)
        yield Case(
            f"tokenizer.encode.{name}",
            (rule,),
            why,
            MODEL,
            "encode",
            {"text": text},
            {"ids": ids},
            kills=kills,
        )
        yield decoding(tokenizer, name, ids)
    yield from special(tokenizer)


def decoding(tokenizer: Tokenizer, name: str, ids: list[int]) -> Case:
    """Ids to the text that they are."""
    kills = {
        "spaced-marks": ("cleans-up-spaces",),
        "contractions": (),
        "chinese": ("token-by-token",),
        "emoji": ("token-by-token",),
        "accents": ("token-by-token",),
        "space-before": ("strips-decoded",),
    }
    rule = {"spaced-marks": "TOK-12"}.get(name, "TOK-11")
    why = "encoded text comes back without change"
    expected = {"text": tokenizer.decode(ids, skip_special_tokens=False)}
    request = {"ids": ids, "skip_special_tokens": False}
    return Case(
        f"tokenizer.decode.{name}",
        (rule,),
        why,
        MODEL,
        "decode",
        request,
        expected,
        kills=kills.get(name, ()),
    )


def special(tokenizer: Tokenizer) -> Iterator[Case]:
    """End tokens left out, characters cut in two, bytes that are not characters."""
    romeo, end = tokenizer.encode("ROMEO:"), tokenizer.encode(END)
    face = tokenizer.encode("🎭")
    table: tuple[tuple[str, list[int], bool, str, str, tuple[str, ...]], ...] = (
        ("skips-end", romeo + end, True, "TOK-11", "the end token is not shown", ("keeps-special",)),
        ("shows-end", romeo + end, False, "TOK-11", "the end token is shown on request", ("drops-special",)),
        ("end-inside", end + romeo + end, True, "TOK-11", "the end token is not shown anywhere else", ("keeps-special",)),
        ("cut-character", romeo + face[:-1], False, "TOK-13", "a character cut short is shown as U+FFFD, not lost", ("drops-invalid",)),
        ("lone-byte", face[-1:] + romeo, False, "TOK-13", "a byte that begins no character is shown as U+FFFD", ("drops-invalid",)),
        ("nothing", [], False, "TOK-11", "no ids give an empty text", ()),
    )  # fmt: skip
    for name, ids, skip, rule, why, kills in table:
        request = {"ids": ids, "skip_special_tokens": skip}
        expected = {"text": tokenizer.decode(ids, skip_special_tokens=skip)}
        yield Case(f"tokenizer.special.{name}", (rule,), why, MODEL, "decode", request, expected, kills=kills)

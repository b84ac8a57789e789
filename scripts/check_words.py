"""Finds stiff English: sentences that are too long, too many colons, and phrases with a plainer form.

scripts/check_words.py [FOLDER]     a line for each hit, and exit code 1 if there are any; FOLDER is a checkout

It reads the prose of Markdown files, without code and tables, and the docstrings and messages of Python files.
CONTRIBUTING.md explains how refgen's words should sound. Its pairs of sentences stand in a table, which is not checked.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MARKDOWN = ("*.md", "docs/*.md", "weights/*.md", "tests/*.md")
PYTHON = ("refgen/**/*.py", "scripts/**/*.py")
MOST_WORDS = 30

INSTEAD = {
    r"\b(has|have|had) not\b(?! (been|yet|\w+ed|\w+en)\b)": "does not have, lacks",
    r"\b(is|are|was|were) (?-i:none)\b": "does not exist, there is no …",
    r"\bbehind\b(?! (a|an|the) (server|proxy))": "after",
    r"\bwhoever\b|(?-i:^Who) \w+ (?!.*\?$)|\b\w+s? who (has|have|is|are|skips?)\b(?<!one who is)": "which, that; or name the person",
    r"^What\b[^,.:;]*\b(is|are|was|were|must|cannot)\b(?!.*\?$)": "the thing first, then what it does",
    r"\bof (its|their|his|her|my|our) own\b|\bof (ours|yours|mine|theirs)\b": "its own …, your …",
    r"\btold\b": "given, set, printed",
    r"\b(is|are|was|were|be) asked to\b|\b(if|unless|when|as) asked\b|\basked for\b": "given, set, requested",
    r"\b(model|network|program|implementation|server|command|page)s? (say|says|said)\b": "prints, returns, produces",
    r"\bnor this\b|\bnor that\b": "a sentence that can be read alone",
    r"\bnobody need\b|\bneed not\b": "does not need to",
    r"\bfor ever\b": "forever",
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b)": "is not a …, there is no …",
    r"\b(is|are) said\b": "is produced, is printed",
    r"\w+(ed|wn|ne) otherwise\b": "in another way",
    r"\bheld to\b": "judged by, tested against",
    r"\b(a|one) (line|file|row|list|thread|number|suite|case) a \w+": "one line for each …",
    r"\bwithout a word\b": "silently",
    r"\bis to be\b|\bare to be\b": "must be, will be",
    r"\bso many\b(?! that)": "that many",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): remedy for pattern, remedy in INSTEAD.items()}

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
ASIDE = re.compile(r"^([\w.]+( error)?: )+|\([^()]*\)|\{.*\}")  # the opening of a message, brackets, data
COLON = re.compile(r"[:;](?=\s|$)")
QUOTED = re.compile(r"\"[^\"]*\"")
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!e\.g\.)(?<!i\.e\.)[\"')*_]*\s+")
DATA = re.compile(
    r"^\|[^\n]*$|^Source: [RPD].*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL
)  # tables, and the last lines of a rule
NEW_BLOCK = re.compile(r"^\s*([-*#>|]|\d+\.)\s")


class Hit(NamedTuple):
    """A sentence to rewrite, and why."""

    place: str
    reason: str
    sentence: str


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph."""
    return [each for each in SENTENCE_END.split(" ".join(paragraph.split())) if each]


def faults(sentence: str) -> Iterator[str]:
    """The reasons to rewrite a sentence."""
    words = len(re.findall(r"[^\W_][\w'.,/-]*", sentence))
    if words > MOST_WORDS:
        yield f"{words} words"
    if len(COLON.findall(ASIDE.sub("", sentence))) > 1:
        yield "several colons or semicolons"
    bare = QUOTED.sub("QUOTED", sentence)
    for pattern, remedy in PATTERNS.items():
        if found := pattern.search(bare):
            yield f"{found[0]!r}: {remedy}"


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """The text with matches replaced by as many empty lines."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every paragraph and list item of Markdown, without tables, code and the targets of links."""
    for left_out in (FENCED, COMMENT, DATA):
        text = blanked(left_out, text)
    text = CODE.sub(lambda match: "Code" + "\n" * match[0].count("\n"), text)
    text = LINK.sub(lambda match: ("Link" if "/" in match[1] else match[1]) + "\n" * match[0].count("\n"), text)
    start, block = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if block and (not line.strip() or NEW_BLOCK.match(line)):
            yield start, block
            block = ""
        if line.strip():
            start = start if block else number
            block += f" {NEW_BLOCK.sub('', line, count=1).strip()}"
            if line.startswith("#"):
                yield start, block
                block = ""


def documented(text: str) -> Iterator[tuple[int, str]]:
    """Offset and text of every paragraph of a docstring; lists with aligned columns are left out, and so are examples."""
    text = CODE.sub("Code", inspect.cleandoc(text))
    start, block, example = 0, "", False
    for number, line in enumerate([*text.splitlines(), ""]):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        column = re.search(r"\S\s{2,}\S", line) or line.startswith("    ")
        if block and (not line.strip() or example or column or NEW_BLOCK.match(line)):
            yield start, block
            block = ""
        if line.strip() and not example and not column:
            start = start if block else number
            block += f" {line.strip()}"


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line number and text of every other string of at least four words. A value in it counts as one word."""
    nested = [
        node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Attribute)
    ]  # "a b c".split() is data
    skipped = {id(part) for node in nested for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and id(node) not in skipped):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            values = [part.value if isinstance(part, ast.Constant) else "Value" for part in parts]
            text = "".join(value for value in values if isinstance(value, str))
            if re.fullmatch(r"[a-z ]{80,}", text):  # a prompt, not a message
                continue
            if len(re.findall(r"\b(?!Value)[A-Za-z]{2,}(?= |\W*$)", text)) >= 4 and "\n" not in text.strip():
                yield node.lineno, text


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text of everything in a file that somebody reads as English."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from paragraphs(text)
        return
    tree, docstrings = ast.parse(text), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(first.value.lineno)
                yield from (
                    (first.value.lineno + offset, block) for offset, block in documented(str(first.value.value))
                )
    yield from ((line, CODE.sub("Code", found)) for line, found in messages(tree) if line not in docstrings)


def hits(root: Path) -> Iterator[Hit]:
    """All sentences of a checkout that should be rewritten."""
    for pattern in (*MARKDOWN, *PYTHON):
        for path in sorted(root.glob(pattern)):
            for line, block in prose(path):
                for sentence in sentences(block):
                    for reason in faults(sentence):
                        yield Hit(f"{path.relative_to(root)}:{line}", reason, sentence)


if __name__ == "__main__":
    found = list(hits(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
    for hit in found:
        print(f"{hit.place}: {hit.reason}\n    {hit.sentence}")
    print(f"check_words: {len(found)} hits")
    sys.exit(bool(found))

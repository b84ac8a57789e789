"""Asking a server for completions, with all that its API takes and tells. model_talk.py asks any subject for rows and logits."""

from collections.abc import Mapping, Sequence
from typing import Any

from refgen.conformance.judging.lab import Lab
from refgen.conformance.questions.serving.material import Material


class ServerTalk:
    """What all questions of the claim share: the server, its model, and what the reference knows of that."""

    def __init__(self, lab: Lab, material: Material | None = None) -> None:
        self.lab, self.model = lab, lab.own
        self.known = Material(lab.reference(self.model)) if material is None else material
        self.tokenizer, self.config = self.known.tokenizer, self.known.config

    def ask(self, prompt: Sequence[int], ids: bool = False, **body: Any) -> dict[str, Any]:
        """One completion, greedy unless the body says more."""
        return self.lab.ask("complete", self.model, body={"prompt": list(prompt), **body}, ids=ids)

    def choice(self, prompt: Sequence[int], ids: bool = False, **body: Any) -> dict[str, Any]:
        """Its first choice."""
        choices = self.ask(prompt, ids, **body)["choices"]
        return choices[0] if choices else {"text": "", "finish_reason": None, "ids": None, "ids_from": "text"}

    def together(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The answers to several bodies at the same time."""
        answers: list[dict[str, Any]] = self.lab.ask("complete_together", self.model, bodies=bodies, ids=True)[
            "answers"
        ]
        return answers

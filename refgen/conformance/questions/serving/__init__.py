"""The claim "serving": the answers of a server besides the tokens, and whether requests leave each other alone.

Questions are functions of a ServerTalk, each with its id, rules and reason; `checks(lab)` binds them to a subject that is a server.
They request greedy text, except in questions about chance, at prompts where rounding cannot change it. Where that is
enough, they compare a server with itself. A fault shows in the first question that fails, because the questions that
spoil others come first.
"""

from dataclasses import replace

from refgen.conformance.judging.lab import Lab
from refgen.conformance.questions.serving import chance, length, limits, numbers, state, text
from refgen.conformance.questions.serving.material import Material
from refgen.conformance.questions.serving.question import QUESTIONS, ServingCheck
from refgen.conformance.questions.serving.server_talk import ServerTalk

ORDER = [module.__name__ for module in (state, length, chance, text, numbers, limits)]


def checks(lab: Lab, material: Material | None = None) -> list[ServingCheck]:
    """All questions, sharing one talk. Empty if the subject is not a server. Material may be shared by servers of one
    model.
    """
    if "complete" not in lab.about.can:
        return []
    talk = ServerTalk(lab, material)
    ordered = sorted(QUESTIONS, key=lambda each: ORDER.index(each.question.__module__))
    return [replace(each, talk=talk) for each in ordered]

"""How a person who waits in the editor is told what went wrong.

Label Studio shows no error of such a call. What a reply puts into a TextArea of the image it
shows at once, accepted or not: it takes the place of what stood there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from backend.labelling import Labelling
from backend.translate import empty_result, new_region_id

PROBLEM_MARK: Final = "SegZero: "
"""How a line begins that tells a problem among the model's reasons: it is no reason."""


def error_result(
    message: str,
    labelling: Labelling,
    model_version: str,
    *,
    regions: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """A prediction that says what is wrong, where the config has a place for it.

    Args:
        message: What is wrong.
        labelling: The project's labelling config.
        model_version: The version that would have answered.
        regions: What the editor is to show again: it drops what was not accepted yet.
        notes: What stands in the notes, where there is no other place than behind them.
    """
    result = empty_result(model_version)
    result["result"] = [*regions, *_text(message, labelling, notes)]
    return result


def no_problem(labelling: Labelling, notes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What takes away what `error_result` told."""
    return _text("", labelling, notes)


def without_problems(text: str | None) -> str | None:
    """What stands in the notes without the lines that tell a problem; None if nothing else does."""
    if text is None or PROBLEM_MARK not in text:
        return text
    lines = [line for line in text.split("\n") if not line.startswith(PROBLEM_MARK)]
    return "\n".join(lines) or None


def _text(message: str, labelling: Labelling, notes: Sequence[str]) -> list[dict[str, Any]]:
    told = " ".join(message.split())  # one line, by which it is known again
    if labelling.status is not None:
        name, lines = labelling.status, [told]
    elif labelling.notes is not None:
        kept = (line for line in notes if not line.startswith(PROBLEM_MARK))
        name, lines = labelling.notes, [*kept, PROBLEM_MARK + told if told else ""]
    else:
        return []
    return [
        {
            "id": new_region_id(),
            "from_name": name,
            "to_name": labelling.image,
            "type": "textarea",
            "value": {"text": [line for line in lines if line]},
        }
    ]

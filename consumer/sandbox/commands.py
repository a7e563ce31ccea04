"""How the sandbox's controls are called: what their bodies are, how wrong ones are refused, and examples to copy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import ConfigDict, ValidationError

from consumer.sandbox.answers import Refusal
from consumer.sandbox.browsers import from_browser
from consumer.sandbox.requests import Shape, is_json, json_of

__all__ = ["Command", "Control", "command_of", "listed_controls"]

_SHOWN: Final = 3
_UNION_MEMBERS: Final = frozenset({"int", "str"})
"""Pydantic puts these behind the field's name where either would do."""


class Command(Shape):
    """Body of a control. Unknown fields are refused: whoever controls a sandbox wants to know of a typing error."""

    model_config = ConfigDict(extra="forbid")


T = TypeVar("T", bound=Command)


@dataclass(frozen=True, slots=True)
class Control:
    """One control, as `GET /sandbox` shows it."""

    call: str
    """Method and path."""
    about: str
    """What it does, or the fields of its body."""
    body: str | None = None
    """An example of one."""

    def example(self, url: str) -> str:
        """A call of it with curl, of the sandbox at `url`."""
        method, _, path = self.call.partition(" ")
        if self.body is not None:
            return f"curl -d '{self.body}' {url}{path}"
        how = "" if method == "GET" else f"-X {method} "
        return f"curl {how}{url}{path}"


def listed_controls(controls: Iterable[Control], url: str) -> dict[str, dict[str, str]]:
    """Each control with what it is about and its example, by its call."""
    return {one.call: {"about": one.about, "example": one.example(url)} for one in controls}


async def command_of(request: web.Request, shape: type[T]) -> T:
    """The body of a control: JSON, whatever the request calls it, for curl calls all it sends a form.

    A form is what a web page can send anywhere without asking, so from a browser only what is called JSON is taken.
    Raises `Refusal`: 415 for that, 422 with one sentence that names what is wrong.
    """
    if from_browser(request.headers) and not is_json(request):
        raise Refusal(415, "Expected application/json: this looks like a web page's request")
    value = await json_of(request)
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise Refusal(422, _sentence(error, shape)) from None


def _sentence(error: ValidationError, shape: type[Command]) -> str:
    problems = error.errors(include_url=False, include_input=False)
    told = list(dict.fromkeys(f"{_place(one['loc'])}: {_words(one, shape)}" for one in problems))
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def _place(path: tuple[int | str, ...]) -> str:
    """A field as it is written: `rules[0].path`."""
    *front, last = path or ("the body",)
    named = [*front, last] if last not in _UNION_MEMBERS else front
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")


def _words(problem: Any, shape: type[Command]) -> str:
    match problem["type"]:
        case "missing":
            return "missing"
        case "extra_forbidden":
            known = f"; there are {', '.join(shape.model_fields)}" if len(problem["loc"]) == 1 else ""
            return f"no such field{known}"
        case "value_error":
            return str(problem["ctx"]["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return "expected a JSON object"
    return str(problem["msg"]).replace("Input should be", "expected", 1)

"""What the API commands are given and how they print: fields, files, times, tables, refusals. No client is called."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import AsyncIterator
from contextlib import redirect_stdout
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.cli.api_input import TIME, assigned, json_object, json_objects, merged, read_file, read_secret
from consumer.cli.api_output import first, plain, print_list, print_object
from consumer.models.thrive import LabResult, NudgeCard

SECRET = "sas-token-canary"


def test_fields_are_put_where_their_paths_say(tmp_path: Path) -> None:
    """Values are JSON where they read as JSON, else text; a file's content is always text, without its line end."""
    (tmp_path / "token").write_text("12345\n")
    found = assigned(
        ["a.b=1", "a.c=x=y", "d=[1, null]", "e=", 'f="1"', "g=NaN", "h.i.j=true"], [f"a.t={tmp_path}/token"]
    )
    assert found == {
        "a": {"b": 1, "c": "x=y", "t": "12345"},
        "d": [1, None],
        "e": "",
        "f": "1",
        "g": "NaN",
        "h": {"i": {"j": True}},
    }


@pytest.mark.parametrize(
    "pairs",
    [
        [SECRET],
        [f"={SECRET}"],
        [f"a..b={SECRET}"],
        [f".a={SECRET}"],
        [f"a={SECRET}", f"a={SECRET}"],
        [f"a={SECRET}", f"a.b={SECRET}"],
        [f"a.b={SECRET}", f"a={SECRET}"],
    ],
)
def test_fields_that_make_no_sense_are_refused_without_their_value(pairs: list[str]) -> None:
    """No field, an empty name, the same one twice, a value that is an object as well: usage errors."""
    with pytest.raises(click.UsageError) as caught:
        assigned(pairs)
    assert SECRET not in caught.value.format_message()


_NAMES = st.sampled_from("abc")
_JSON = st.recursive(st.integers(0, 3), lambda inner: st.dictionaries(_NAMES, inner), max_leaves=8)
_OBJECTS = st.dictionaries(_NAMES, _JSON)


@given(_OBJECTS, _OBJECTS)
@settings(max_examples=50)
def test_what_is_merged_has_all_of_the_later(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Whatever stands in the later object stands in the result; merging nothing, or the same again, changes nothing."""
    result = merged(base, over)
    assert set(result) == set(base) | set(over)
    assert all(result[key] == value for key, value in over.items() if not isinstance(value, dict))
    assert merged(result, over) == result
    assert merged(base, {}) == base


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    """White space around a secret is dropped; an empty file, one that is no text and one too large are refused."""
    file = tmp_path / "secret"
    file.write_text(f"  {SECRET}\n")
    assert read_secret(file) == SECRET
    for wrong in (b" \n", b"\xff\xfe", b"x" * 70_000):
        file.write_bytes(wrong)
        with pytest.raises(click.ClickException, match=r"secret: ") as caught:
            read_secret(file)
        assert caught.value.exit_code == 1


def test_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    """A file of exactly the limit is read, one byte more is refused."""
    file = tmp_path / "file"
    file.write_bytes(b"123")
    assert read_file(file, limit=3) == b"123"
    with pytest.raises(click.ClickException, match="larger than 2 bytes"):
        read_file(file, limit=2)


@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '\n[\n{"a": 1}, {"a": 2}]', '{"a": 1}\n\n{"a": 2}\n'])
def test_objects_are_one_array_or_one_a_line(tmp_path: Path, text: str) -> None:
    """Both ways of writing several objects mean the same."""
    file = tmp_path / "items"
    file.write_text(text)
    assert json_objects(file, limit=1000) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f'{{"a": 1}}\n{SECRET}', ":2: expected JSON"),
        (f'\n{{"a": 1}}\n"{SECRET}"', ":3: expected a JSON object"),
        (f'[{{"a": 1}}, "{SECRET}"]', ": item 1: expected a JSON object"),
        (f"[{SECRET}", ": expected JSON"),
        ('[{"a": NaN}]', ": expected JSON"),
        ("[" * 100_000, ": expected JSON"),
    ],
)
def test_what_is_no_object_is_named_by_its_place(tmp_path: Path, text: str, where: str) -> None:
    """The line or the item is said, its content is not."""
    file = tmp_path / "items"
    file.write_text(text)
    with pytest.raises(click.ClickException) as caught:
        json_objects(file, limit=1_000_000)
    assert caught.value.message == f"{file}{where}"


def test_a_body_is_one_object(tmp_path: Path) -> None:
    """A JSON object is read, anything else is refused."""
    file = tmp_path / "body"
    file.write_text('{"a": {}}')
    assert json_object(file) == {"a": {}}
    file.write_text("[]")
    with pytest.raises(click.ClickException, match="expected a JSON object"):
        json_object(file)


def test_times_are_dates_or_have_an_offset() -> None:
    """A date stays one, a time needs an offset, nothing else is taken."""
    assert TIME.convert("2026-03-16", None, None) == date(2026, 3, 16)
    assert TIME.convert("2026-03-16T08:00:00Z", None, None) == datetime(2026, 3, 16, 8, tzinfo=UTC)
    for wrong in ("2026-03-16T08:00:00", "yesterday", "", "1700000000.5"):
        with pytest.raises(click.BadParameter):
            TIME.convert(wrong, None, None)


async def _numbers(fetched: list[int]) -> AsyncIterator[int]:
    for number in range(5):
        fetched.append(number)
        yield number


@pytest.mark.parametrize(
    ("limit", "expected"), [(2, ([0, 1], True)), (5, ([0, 1, 2, 3, 4], False)), (4, ([0, 1, 2, 3], True))]
)
async def test_lists_stop_at_their_limit(limit: int, expected: tuple[list[int], bool]) -> None:
    """As many as asked for, and whether there is one more; the rest is not fetched."""
    fetched: list[int] = []
    assert await first(_numbers(fetched), limit) == expected
    assert len(fetched) == min(limit + 1, 5)


RESULT = LabResult.model_validate(
    {
        "lab_result_id": "r1",
        "title": "a\x1b[31m\nb",
        "domains": [{"domain_name": "Heart", "values": [{"parameter": "LDL", "value": 3.1}]}],
        "new_field": {"x": [1, "two"]},
    }
)


def test_an_object_is_a_line_for_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Nested fields have dotted names, unknown ones are shown, control characters and line ends are spelt out."""
    print_object(RESULT, as_json=False)
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["lab_result_id"] == "r1"
    assert lines["domains.0.values.0.value"] == "3.1"
    assert lines["new_field.x"] == "1, two"
    assert lines["title"] == r"a\x1b[31m\nb"
    assert lines["test_date"] == "-"


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON reads back to the whole answer, and holds no control character."""
    print_object(RESULT, as_json=True)
    out = capsys.readouterr().out
    assert json.loads(out) == RESULT.model_dump(mode="json")
    assert json.loads(out)["new_field"] == {"x": [1, "two"]}
    assert out.replace("\n", "").isprintable()


def test_a_list_is_a_table_of_some_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """A header and a row each; that there is more is said elsewhere."""
    print_list([RESULT, {"lab_result_id": None}], ("lab_result_id", "new_field.x"), as_json=False, more=True)
    told = capsys.readouterr()
    assert told.out == "lab result id\tnew field.x\nr1\t1, two\n-\t-\n"
    assert "--limit" in told.err


_ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), _ANSWERS, min_size=1, max_size=3))
@settings(max_examples=30)
def test_any_answer_can_be_shown(answer: dict[str, Any]) -> None:
    """Whatever a platform sends: JSON reads back to it, and no line of either form holds a control character."""
    model = NudgeCard.model_validate({f"x_{key}": value for key, value in answer.items()})
    for shown in (answer, model):
        text, whole, table = StringIO(), StringIO(), StringIO()
        with redirect_stdout(text):
            print_object(shown, as_json=False)
        with redirect_stdout(whole):
            print_object(shown, as_json=True)
        with redirect_stdout(table):
            print_list([shown], ("a", *answer), as_json=False)
        assert json.loads(whole.getvalue()) == plain(shown)
        for line in (text.getvalue() + whole.getvalue() + table.getvalue()).replace("\t", "").split("\n"):
            assert not any(unicodedata.category(letter) == "Cc" for letter in line)


def nested(levels: int) -> Any:
    deep: Any = {"leaf": 1}
    for _ in range(levels):
        deep = {"a": [deep]}
    return deep


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("odd", [nested(400), {"\ud800": 1}], ids=["deep", "no text"])
def test_an_answer_that_cannot_be_shown(as_json: bool, odd: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed rather than half of it: exit code 1, and no traceback."""
    model = LabResult.model_validate({"lab_result_id": "r1", "odd": odd})
    with pytest.raises(click.ClickException, match="cannot be shown") as caught:
        print_object(model, as_json=as_json)
    assert caught.value.exit_code == 1
    with pytest.raises(click.ClickException, match="cannot be shown"):
        print_list([model], ("odd",), as_json=as_json)
    assert capsys.readouterr().out == ""


def test_no_data_is_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there: an empty standard output or JSON's null and [], and a note."""
    print_list([], ("a",), as_json=False)
    print_object({}, as_json=False)
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "no data\nno data\n")
    print_list([], ("a",), as_json=True)
    print_object(None, as_json=True)
    assert capsys.readouterr().out == "[]\nnull\n"

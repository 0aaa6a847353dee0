"""Messages name Python arguments; the command line names its options instead."""

from __future__ import annotations

import click
import pytest

from amodal.cli.console import warn
from amodal.cli.sentences import sentence, with_options
from amodal.runtime.errors import AmodalError, InputError, MissingDependencyError, argument


@click.command()
@click.argument("bundle")
@click.option("-o", "--out")
@click.option("--object", "object_id", type=int)
@click.option("--memory")
@click.option("--samples", type=int)
@click.option("--overwrite", is_flag=True)
@click.option("--verify/--no-verify", default=True)
def command(**options: object) -> None:
    """Has an option of each kind."""
    warn(["give another folder for `out`"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("give another folder for `out`", "give another folder for --out"),
        ("pick one with `object_id`", "pick one with --object"),
        ('try `memory="sequential"`', "try --memory sequential"),
        ("try `samples=2`", "try --samples 2"),
        ("replace it with `overwrite=True`", "replace it with --overwrite"),
        ("open it with `verify=False`", "open it with --no-verify"),
        ("open it with `verify=True`", "open it with --verify"),
        ("`bundle` is missing", "BUNDLE is missing"),
        ("`verify=False` and `out`", "--no-verify and --out"),
    ],
)
def test_an_argument_in_backticks_becomes_its_option(text: str, expected: str) -> None:
    assert with_options(text, command.params) == expected


@pytest.mark.parametrize("text", ["`amodal export -o out`", "`rgb`", "`other=3`", "`memory sequential`", "memory"])
def test_other_text_in_backticks_stays(text: str) -> None:
    assert with_options(text, command.params) == text


def test_a_message_without_an_argument_gets_the_option_of_the_field() -> None:
    assert sentence(InputError("0 samples.", field="samples"), command.params) == "0 samples (--samples)."


def test_a_message_that_names_an_option_gets_no_second_one() -> None:
    error = InputError("pick one with `object_id`.", field="out")
    assert sentence(error, command.params) == "pick one with --object."


def test_the_field_of_another_command_is_left_out() -> None:
    assert sentence(InputError("0 steps.", field="steps"), command.params) == "0 steps."
    assert sentence(InputError("0 steps."), command.params) == "0 steps."


def test_errors_that_format_themselves_have_options_too() -> None:
    error = MissingDependencyError("cupy is not installed; or choose `memory`.")
    assert sentence(error, command.params) == "cupy is not installed; or choose --memory."


def test_an_argument_at_fault_replaces_that_of_the_function_called() -> None:
    def read() -> None:
        raise InputError("nowhere does not exist.", field="masks")

    with pytest.raises(AmodalError) as caught, argument("out"):
        read()
    assert sentence(caught.value, command.params) == "nowhere does not exist (--out)."


def test_warnings_name_options(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["bundle"], standalone_mode=False)
    assert capsys.readouterr().err == "Warning: give another folder for --out\n"
    warn(["`out`"])
    assert capsys.readouterr().err == "Warning: `out`\n"

"""Read command-line options into a settings class."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import BaseModel, ValidationError
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from wm_core.cli.examples import examples_of
from wm_core.cli.first_options import first_options
from wm_core.cli.keyword_values import keywords_rule
from wm_core.cli.screen import Captured, complain, without_frame, wrapped
from wm_core.contract.errors import SettingsError
from wm_core.contract.whole import whole
from wm_core.renamed import renewed_words

T = TypeVar("T", bound=BaseModel)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_HERE = "DESCRIPTION"  #: stands in tyro's help text where ours is put


def parse(
    model: type[T],
    args: Sequence[str],
    *,
    verb: str,
    default: T | None = None,
    more: str = "",
    first: Mapping[str, Sequence[str]] | None = None,
) -> T:
    """Read the settings in ``args``; a typo or a bad value ends the process with status 2.

    Args:
        model: the class of the settings; its docstring and descriptions are the help text.
        args: the words after the verb.
        verb: named in the help and in errors.
        default: values of the options that are not given; None: the defaults of ``model``.
        more: paragraphs that follow the docstring in the help text.
        first: heading -> names of the options that --help shows; --help-all shows the others
            too.  None: --help shows all.

    Raises:
        SettingsError: for a value that its option does not take.
    """
    args, notes = renewed_words(args)
    for note in notes:
        complain(f"wm {verb}: {note}")
    if "--help-all" in args or "--help" in args or "-h" in args:
        few = first is not None and "--help-all" not in args
        sys.stdout.write(_few(model, verb, default, first or {}) if few else
                         _all(model, verb, default, more))  # fmt: skip
        raise SystemExit(0)
    settings: T = _read(model, args, verb=verb, default=default)
    return settings


def parse_known(model: type[T], args: Sequence[str], *, verb: str) -> tuple[T, list[str]]:
    """Read the settings in ``args`` as ``parse`` does; the words of other options come back."""
    if "--help" in args or "-h" in args:
        parse(model, args, verb=verb)
    settings, rest = _read(model, args, verb=verb, default=None, known=True)
    return settings, list(rest)


def _read(
    model: type[T], args: Sequence[str], *, verb: str, default: T | None, known: bool = False
) -> Any:
    said = Captured(sys.stderr)
    try:
        with redirect_stderr(said):
            options: dict[str, Any] = {"default": default} if default is not None else {}
            if known:
                options["return_unknown_args"] = True
            return tyro.cli(
                model, args=args, prog=f"wm {verb}", registry=reader_of(model), **options
            )
    except _Refused as error:
        raise SettingsError(str(error)) from error
    finally:
        framed = said.getvalue()
        if framed and sys.stderr.isatty():
            sys.stderr.write(framed)
        elif framed:
            sys.stderr.write(f"wm {verb}: {without_frame(framed)}\n")


def _few(model: type[T], verb: str, default: T | None, first: Mapping[str, Sequence[str]]) -> str:
    """The help text with the options that matter first."""
    title = (inspect.getdoc(model) or "").partition("\n")[0]
    preset, size = getattr(default, "preset", ""), getattr(default, "size", "")
    whose = f" Defaults (in brackets) are those of {preset} in size {size}." if preset else ""
    parts = [
        f"usage: wm {verb} [OPTIONS]        all options: wm {verb} --help-all",
        wrapped(f"{title}{whose}"),
        examples_of(verb),
        first_options(model, first, default),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _all(model: type[T], verb: str, default: T | None, more: str) -> str:
    """The help text with every option."""
    start = tyro.MISSING_NONPROP if default is None else default
    said = Captured(sys.stdout)
    with redirect_stdout(said), suppress(SystemExit):
        tyro.cli(
            model,
            args=["--help"],
            prog=f"wm {verb}",
            default=start,
            description=_HERE,
            registry=reader_of(model),
        )
    usage, _, options = said.getvalue().partition(_HERE)
    about = (inspect.getdoc(model) or "").replace("``", "`")
    usage = wrapped(_COLOURS.sub("", usage).strip(), indent="    ")
    options = options.partition("\n")[2].strip("\n")
    parts = [usage, wrapped(about), wrapped(more), examples_of(verb), options]
    return "\n\n".join(filter(None, parts)) + "\n"


# ---------------------------------------------------------------------------- values of options


class _Refused(Exception):  # not a ValueError, which tyro would wrap in words of its own
    """A value that does not fit, in one sentence that names its option."""


@contextmanager
def whole_numbers() -> Iterator[None]:
    """While it is open, tyro takes ``1e6`` and ``500_000`` for whole numbers."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_whole_rule)
    with registry:
        yield


def reader_of(model: type[BaseModel]) -> ConstructorRegistry:
    """How tyro reads the options of ``model``: whole numbers as people write them."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_whole_rule)
    registry.primitive_rule(keywords_rule)
    registry.struct_rule(_group_rule(dict(_groups(model, ""))))
    return registry


def _whole_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _groups(model: type[BaseModel], prefix: str) -> Iterator[tuple[type[BaseModel], str]]:
    """(class, prefix of its options) of ``model`` and of each group of settings in it."""
    yield model, prefix
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _groups(field.annotation, f"{prefix}{name}.")


def _group_rule(
    prefixes: Mapping[type[BaseModel], str],
) -> Callable[[StructTypeInfo], StructConstructorSpec | None]:
    """A rule that makes the groups in ``prefixes`` and names the option of a wrong value."""

    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        model = info.type
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None

        def make(**values: Any) -> BaseModel:
            try:
                return model(**values)
            except ValidationError as error:
                prefix = prefixes.get(model, "")
                reasons = (_reason(dict(e), prefix, _renamed(model)) for e in error.errors())
                raise _Refused("; ".join(reasons)) from error

        make.__doc__, make.__name__ = model.__doc__, model.__name__
        return StructConstructorSpec(instantiate=make, fields=tuple(_fields(model, info.default)))

    return rule


def _fields(model: type[BaseModel], default: Any) -> Iterator[StructFieldSpec]:
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        if field.metadata:
            kind = Annotated[(kind, *field.metadata)]
        value: Any = tyro.MISSING_NONPROP
        if isinstance(default, BaseModel) and hasattr(default, name):
            value = getattr(default, name)
        elif not field.is_required():
            value = field.get_default(call_default_factory=True)
        yield StructFieldSpec(name=name, type=kind, default=value, helptext=field.description)


def _renamed(model: type[BaseModel]) -> dict[str, str]:
    """Map fields of ``model`` to the options that are not called like them, as ``from_s``."""
    return {
        field: name
        for field, info in model.model_fields.items()
        for note in info.metadata
        if isinstance(name := getattr(note, "name", None), str)
    }


def _reason(error: dict[str, Any], prefix: str, renamed: Mapping[str, str]) -> str:
    """One sentence about one of pydantic's errors, which names the option."""
    if error["type"] == "value_error":
        text = str(error["ctx"]["error"])
    else:
        text = str(error["msg"]).replace("Input should be", "expected a value")
    if not error["loc"]:
        return text
    first, *more = map(str, error["loc"])
    name = prefix + ".".join([renamed.get(first, first), *more])
    told = " got " in text or isinstance(error["input"], BaseModel | Mapping)
    got = "" if told else f", got {error['input']}"
    return f"--{name.replace('_', '-')}: {text}{got}"


def peek(args: Sequence[str], *names: str) -> dict[str, str]:
    """Read a few ``--name value`` options before the others are known."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        first.add_argument(f"--{name}", default=argparse.SUPPRESS, nargs="?")
    found, _ = first.parse_known_args(list(args))
    return {k: v for k, v in vars(found).items() if v is not None}

"""Every option of every verb has a help text that stands alone on a terminal."""

from __future__ import annotations

import importlib
import re
import shlex
from contextlib import suppress

import pytest
from pydantic import BaseModel

from wm_core.cli.bench import SUBJECTS
from wm_core.cli.data import SUB_VERBS
from wm_core.cli.first_options import TRAIN, flag, option
from wm_core.cli.main import VERBS, main
from wm_core.cli.settings import parse
from wm_core.library.run_folder import TrainSettings

#: verb -> its table of what follows it, each with options of its own
TABLES = {"bench": SUBJECTS, "data": SUB_VERBS}


def settings_of(verb):
    """The settings classes that ``verb`` reads options of."""
    subjects = [name for name, _ in TABLES.get(verb, {}).values()]
    modules = [importlib.import_module(name) for name in (VERBS[verb][0], *subjects)]
    return [
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel)
        if name.endswith("Settings") or value.__module__ == module.__name__
    ]


def options(model, prefix=""):
    """(dotted name, description) of every option that ``model`` has, its parts included."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from options(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description


def stands_alone(text):
    """Whether ``text`` is at least four words that begin a sentence of their own."""
    return bool(text) and len(text.split()) >= 4 and not text.startswith("of ")


#: verbs that run where tyro is not installed
OF_ARGPARSE = ("store", "robot", "doctor", "keys", "policy")


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {*OF_ARGPARSE}))
def test_every_option_has_a_text_that_stands_alone(verb):
    models = settings_of(verb)
    assert models
    found = [option for model in models for option in options(model)]
    assert [name for name, text in found if not stands_alone(text)] == []


@pytest.mark.parametrize("text", [None, "latent", "of the hinge below", "three short words"])
def test_fragments_do_not_stand_alone(text):
    assert not stands_alone(text)


def test_the_terminal_shows_the_texts(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--world.gru.deter INT Size D of the recurrent state, at least 1." in shown
    assert "Tokens that a layer sees, at least 2." in shown


SUBJECT_HELP = [[verb, subject, "--help"] for verb, table in TABLES.items() for subject in table]


def every_verb():
    """The names of all verbs; the one that needs ROS is marked."""
    return [pytest.param(v, marks=pytest.mark.ros) if v == "doctor" else v for v in VERBS]


def examples_in(text, verb):
    """The command lines of ``verb`` that stand in ``text``, without what is said beside them."""
    lines = re.findall(rf"^\s+(wm {verb}\b.*?)(?:\s{{2,}}.*)?$", text, re.MULTILINE)
    return [line for line in lines if " ... " not in line]


def read(verb, words):
    """Read the options of a command line as ``verb`` would, and do nothing."""
    module = importlib.import_module(VERBS[verb][0])
    if hasattr(module, "_parser"):
        module._parser().parse_args(words)
    elif verb in TABLES:
        model = settings_of_subject(verb, words[0])
        parse(model, words[1:], verb=verb)
    else:
        parse(model_of(verb), words, verb=verb)


def model_of(verb):
    """The class of the settings of ``verb`` itself, not those that they are made of."""
    models = settings_of(verb)
    return next(m for m in models if not any(m in o.__mro__[1:] for o in models if o is not m))


def settings_of_subject(verb, subject):
    """The class that ``subject`` reads; of a module of several, the one that has its name."""
    module = importlib.import_module(TABLES[verb][subject][0])
    models = {
        n: m
        for n, m in vars(module).items()
        if n.endswith("Settings") and getattr(m, "__module__", "") == module.__name__
    }
    named = f"{verb}{subject}Settings".lower()
    (model,) = [m for n, m in models.items() if len(models) == 1 or n.lower() == named]
    return model


def help_of(capsys, monkeypatch, *words):
    monkeypatch.setenv("COLUMNS", "80")
    with suppress(SystemExit):
        assert main([*words]) == 0
    return capsys.readouterr().out


def too_wide(text):
    return [line for line in text.splitlines() if len(line.rstrip()) > 80]


@pytest.mark.parametrize("verb", every_verb())
def test_the_help_of_a_verb_fits_80_columns_and_its_examples_are_right(verb, capsys, monkeypatch):
    shown = help_of(capsys, monkeypatch, verb, "--help")
    assert too_wide(shown) == []
    found = [shlex.split(line) for line in examples_in(shown, verb)]
    assert found
    for words in found:
        read(verb, words[2:])


@pytest.mark.parametrize("words", [["--help"], ["train", "--help-all"], *SUBJECT_HELP])
def test_longer_help_fits_80_columns_too(words, capsys, monkeypatch):
    assert too_wide(help_of(capsys, monkeypatch, *words)) == []


def test_the_help_of_train_shows_what_matters_first_on_one_screen(capsys, monkeypatch):
    shown = help_of(capsys, monkeypatch, "train", "--help")
    assert len(shown.splitlines()) < 60
    fields = {n: option(TrainSettings, n) for names in TRAIN.values() for n in names}
    flags = [flag(field, name) for name, field in fields.items() if field is not None]
    assert len(flags) >= 18
    assert [name for name in flags if f"  --{name} " not in shown] == []
    assert "--help-all" in shown


def test_the_rest_of_the_help_of_train_shows_every_option(capsys, monkeypatch):
    shown = help_of(capsys, monkeypatch, "train", "--help-all")
    found = [name for name, _ in options(TrainSettings)]
    names = [f"--{flag(option(TrainSettings, name), name)}" for name in found]
    registered = {"--world.own", "--behavior.own", "--replay.own"}  # whose options are of others
    assert [name for name in names if name not in shown and name not in registered] == []


def test_an_example_with_an_option_that_does_not_exist_is_noticed():
    with pytest.raises(SystemExit):
        read("evaluate", ["--run", "runs/seek", "--episode-number", "3"])

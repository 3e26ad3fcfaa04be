"""Every option of every verb has a help text that stands alone on a terminal."""

from __future__ import annotations

import importlib

import pytest
from pydantic import BaseModel

from wm_core.cli.bench import SUBJECTS
from wm_core.cli.main import VERBS, main


def settings_of(verb):
    """The settings classes that ``verb`` reads options of."""
    subjects = [name for name, _ in SUBJECTS.values()] if verb == "bench" else []
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
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--world.gru.deter INT Size D of the recurrent state, at least 1." in shown
    assert "Tokens that a layer sees, at least 2." in shown

"""Makes environments by the name of a task, and the ``Spec`` that a policy for them has.

``walker_walk`` is a task of this project, ``my_package.my_module:MyTask-v0`` a user's own, and
``CartPole-v1`` any other that Gymnasium has; ``CartPole-v1@pixels`` gives rendered images.
What their observations and actions become stands in ``training.spaces``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import re
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.wrappers import AddRenderObservation, StickyAction, TimeLimit

from wm_core.contract.errors import EnvFault, SettingsError, nearest, shown
from wm_core.contract.spec import Spec
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, split_view
from wm_core.training.atari import NAMESPACE, make_game
from wm_core.training.repeats import at_rate_of, repeats_of, stated_repeat, usual_repeat
from wm_core.training.settings import EnvConfig
from wm_core.training.spaces import ActionMap, ObsReader, said_env
from wm_core.training.wrappers import Checked, Gray, Repeat, has_colours, raised

HOME = "sim"  #: the module whose tasks need no prefix
#: arguments of ``gymnasium.make`` that are none of the task's, and what to use instead
_RESERVED = {
    "id": "name it as the task",
    "max_episode_steps": "use --env.time-limit",
    "disable_env_checker": "results are checked always",
}


def task_names() -> list[str]:
    """List the names of this project's own tasks, sorted; empty where they are not installed."""
    try:
        importlib.import_module(HOME)
    except ModuleNotFoundError:
        return []
    return sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if isinstance(spec.entry_point, str)
        and spec.entry_point.split(".")[0].split(":")[0] == HOME
    )


def make_env(task: str, settings: EnvConfig | None = None, **kwargs: Any) -> gymnasium.Env:
    """Make the environment of ``task`` as ``settings`` say.

    Its results are checked: whatever it does wrong is an ``EnvFault``.

    Args:
        task: as described above.
        settings: None: the defaults.
        kwargs: more keywords of its constructor.

    Raises:
        SettingsError: for a task that does not exist (naming the nearest) or does not load, and
            for a setting that has no effect on it.
        EnvFault: where its constructor raises.
    """
    settings = settings or EnvConfig()
    name, view = split_view(task)
    own = name in task_names()  # importing them registers them
    game = name.startswith(NAMESPACE)
    kwargs = _keywords(task, name, settings, kwargs, own=own, game=game)
    if view:
        kwargs["render_mode"] = "rgb_array"
    env: gymnasium.Env
    try:
        if game:
            env = Checked(make_game(name, **kwargs), task)
        else:
            whole = gymnasium.make(name, max_episode_steps=-1, disable_env_checker=True, **kwargs)
            _check_spaces(task, whole)
            env = Checked(whole, task)
            known = whole.unwrapped.spec and gymnasium.registry.get(whole.unwrapped.spec.id)
            if known and known.max_episode_steps and settings.time_limit is None:
                env = TimeLimit(env, known.max_episode_steps)
        return _wrapped(task, env, settings, view, game=game)
    except EnvFault:
        raise
    except ModuleNotFoundError as error:
        raise SettingsError(_not_found(task, error.name or name.split(":")[0])) from error
    except gymnasium.error.UnregisteredEnv as error:
        if ":" in name or "/" in name:
            raise SettingsError(f"task {task!r}: there is no such id: {error}") from error
        raise SettingsError(nearest(name, gymnasium.registry, what="task")) from error
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        reason = _only_vectors(name) or _wrong_keyword(name, str(error))
        if "Malformed environment ID" in str(error):  # the name of a robot's task, perhaps
            reason = "expected a name as environments have, such as seek or Pendulum-v1"
        reason = reason or " ".join(str(error).split())
        raise SettingsError(f"task {shown(task, 60)!r} cannot be made: {reason}") from error
    except (Exception, SystemExit) as error:
        raise raised(task, "its constructor", error) from error


def _not_found(task: str, module: str) -> str:
    """Say that Python does not find ``module``, and how it would if it lies right here."""
    top = module.split(".")[0]
    if Path(f"{top}.py").is_file() or Path(top).is_dir():
        return (
            f"task {task!r}: {top!r} lies in the working folder, where Python does not look for "
            "modules; name the folder: PYTHONPATH=. wm ..."
        )
    return f"task {task!r}: module {module!r} is not installed here"


def fitted(task: str, settings: EnvConfig, spec: Spec | None) -> EnvConfig:
    """Adapt ``settings`` so that the environment gives the inputs of ``spec``, where it can.

    Policies whose settings are not known, and specs from files, say by their inputs alone whether
    they need ``proprio``, and how large their images are; by their period, how long an action is
    held in this project's own tasks.
    """
    if spec is None:
        return settings
    if _repeats_itself(task):
        settings = at_rate_of(task, settings, spec)
    changes: dict[str, Any] = {}
    if spec.vectors and task in task_names() and "proprio" in _takes(task):
        changes["proprio"] = True
    sizes = {(image.height, image.width) for image in spec.images.values()}
    height, width = sizes.pop() if len(sizes) == 1 else (0, 1)
    if height == width and height != settings.image_size:
        changes["image_size"] = height
    fits = {image.fit for image in spec.images.values()}
    if len(fits) == 1:
        changes["fit"] = fits.pop()
    return settings.model_copy(update=changes)


def _keywords(
    task: str, name: str, settings: EnvConfig, more: dict[str, Any], *, own: bool, game: bool
) -> dict[str, Any]:
    """Give the keywords for the constructor; refuse settings that it has no use for."""
    kwargs = dict(settings.kwargs) | more
    for word, cure in _RESERVED.items():
        if word in kwargs:
            raise SettingsError(f"task {task!r}: {word} is no keyword of a task; {cure}")
    if settings.life_loss and not game:
        raise SettingsError(f"task {task!r}: env.life_loss is for Atari games ({NAMESPACE}...)")
    if game:
        chosen = {
            "image_size": settings.image_size,
            "gray": settings.gray,
            "life_loss": settings.life_loss,
            "sticky": settings.sticky,
        }
        return chosen | kwargs
    takes = _takes(name) if own else ()
    if settings.proprio and "proprio" not in takes:
        raise SettingsError(
            f"task {task!r}: env.proprio is for this project's tasks that are seen by a camera"
        )
    if settings.proprio:
        kwargs.setdefault("proprio", True)
    if "image_size" in takes:
        kwargs.setdefault("image_size", settings.image_size)
    if "action_repeat" in takes:
        repeat = settings.action_repeat or usual_repeat(name)
        kwargs.setdefault("action_repeat", repeat)
    return kwargs


def _repeats_itself(task: str) -> bool:
    """Tell whether ``task`` holds actions itself, which renders one image for all of them."""
    return task in task_names() and "action_repeat" in _takes(task)


def _takes(name: str) -> tuple[str, ...]:
    """List the keywords of the constructor of ``name``, a task of this project."""
    creator: Any = load_env_creator(str(gymnasium.spec(name).entry_point))
    parameters = inspect.signature(creator).parameters
    every = ("image_size", "proprio", "action_repeat")
    return tuple(parameters) if "kwargs" not in parameters else every


def _only_vectors(name: str) -> str:
    """Say that ``name`` makes environments in batches alone; "" where it makes single ones."""
    known = gymnasium.registry.get(name.rpartition(":")[2])
    if known is None or known.entry_point is not None or known.vector_entry_point is None:
        return ""
    return (
        "it is registered with a vector_entry_point alone, expected an entry_point that makes one "
        "environment; --train.envs makes several of it"
    )


def _wrong_keyword(name: str, reason: str) -> str:
    """Name the keyword that a constructor refused, and the nearest of its own; "" for neither."""
    found = re.search(r"unexpected keyword argument '(\w+)'", reason)
    known = gymnasium.registry.get(name.rpartition(":")[2])
    if found is None or known is None or known.entry_point is None:
        return ""
    entry = known.entry_point
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    takes = inspect.signature(creator).parameters.values()
    legal = [p.name for p in takes if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if not legal:
        return f"its constructor has no keyword {found[1]!r}, nor any other"
    close = difflib.get_close_matches(found[1], legal, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"its constructor has no keyword {found[1]!r}; {hint}It has: {', '.join(legal)}"


def _check_spaces(task: str, env: gymnasium.Env) -> None:
    for name in ("observation_space", "action_space"):
        space = getattr(env.unwrapped, name, None)
        if not isinstance(space, spaces.Space):
            raise EnvFault(
                f"task {task!r}: its {name} is {space!r}, expected one of gymnasium.spaces"
            )


def _wrapped(
    task: str, env: gymnasium.Env, settings: EnvConfig, view: str, *, game: bool
) -> gymnasium.Env:
    """Wrap ``env``, whose results are checked, as ``settings`` say."""
    if not _repeats_itself(split_view(task)[0]):
        repeat = settings.action_repeat or stated_repeat(env.metadata, task) or 1
        env = Repeat(env, repeat) if repeat > 1 else env
    if settings.sticky and not game:
        env = StickyAction(env, settings.sticky)
    if view:
        only = view == "pixels"
        env = AddRenderObservation(env, only, render_key=IMAGE_KEY, obs_key=VECTOR_KEY)
    if settings.gray and not game:
        if not has_colours(env.observation_space):
            raise SettingsError(f"task {task!r}: env.gray has no effect: it gives no colour image")
        env = Gray(env)
    return env if settings.time_limit is None else TimeLimit(env, settings.time_limit)


def spec_of(
    env: gymnasium.Env, settings: EnvConfig | None = None, *, image_size: int | None = None
) -> Spec:
    """Give the inputs and actions of a policy for ``env``.

    Args:
        env: observations are boxes or choices (one, or a dictionary of them), actions a box or a
            choice.
        settings: that ``env`` was made with; None: the defaults.
        image_size: height and width that larger images are cropped and resized to, pixels; None:
            as ``settings`` say.

    Raises:
        SettingsError: for spaces that a policy cannot use, such as actions without bounds.
    """
    settings = settings or EnvConfig()
    try:
        reader = _reader(env, settings, image_size)
        action = ActionMap(env.action_space, env.metadata).spec
    except SettingsError as error:
        raise SettingsError(f"{said_env(env)}: {error}") from error
    if not reader.images:
        _refuse_image_settings(env, settings)
    return Spec(
        images=reader.images,
        vectors=reader.vectors,
        action=action,
        period_s=repeats_of(env) / _rate_hz(env),
    )


def _refuse_image_settings(env: gymnasium.Env, settings: EnvConfig) -> None:
    """Refuse settings of images of an environment that gives none."""
    for name in ("image_size", "fit"):
        if name in settings.changed:
            raise SettingsError(f"{said_env(env)}: env.{name} has no effect: there is no image")


def _rate_hz(env: gymnasium.Env) -> float:
    """Read how many steps a second has; 20 where the environment does not say it."""
    stated = (env.metadata or {}).get("render_fps")
    if stated is None:
        return 20.0
    try:
        rate_hz = float(stated)
    except (TypeError, ValueError):
        rate_hz = math.nan
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise SettingsError(
            f"metadata of {type(env.unwrapped).__name__}: render_fps is {stated!r}, expected "
            "steps per second, a number above 0; leave it out for 20"
        )
    return rate_hz


def rules_of(
    env: gymnasium.Env, settings: EnvConfig | None = None, *, image_size: int | None = None
) -> dict[str, str]:
    """Say of each input and of the action which part of ``env`` it comes from, and by what rule.

    Args:
        env: as for ``spec_of``, as the other arguments are.
        settings: that ``env`` was made with.
        image_size: height and width of the images that the network sees, pixels.
    """
    reader = _reader(env, settings or EnvConfig(), image_size)
    return {**reader.rules, "action": ActionMap(env.action_space, env.metadata).rule}


def _reader(env: gymnasium.Env, settings: EnvConfig, image_size: int | None) -> ObsReader:
    size = settings.image_size if image_size is None else image_size
    return ObsReader(env.observation_space, env.metadata, image_size=size, fit=settings.fit)

"""Draws an episode: a contact sheet of its images, its numbers over time, and a film."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wm_core.recordings.care.played import EpisodeArrays

_LEAST_PX, _MOST_PX = 96, 240  #: longer side of a picture on a sheet
_BAR_PX, _GAP_PX = 16, 6
_BACK, _TEXT = (20, 20, 24), (235, 235, 235)
_MARKS = (  # flag, letter in a caption, colour
    ("is_intervention", "by a person", (255, 170, 60)),
    ("is_terminal", "terminal", (255, 90, 90)),
    ("is_last", "last", (150, 190, 255)),
    ("is_first", "first", (150, 255, 170)),
)
_LINES = 12  #: numbers of a sensor that are drawn as lines; more are drawn as shades
_COLOURS = 128


def contact_sheet(played: EpisodeArrays, *, columns: int = 6) -> bytes:
    """Draw the images of an episode in rows, each with its step, time and reward, as a PNG.

    Args:
        played: with at least one camera.
        columns: pictures in a row.
    """
    cells = {key: [_sized(f) for f in frames] for key, frames in played.frames.items()}
    width = max(cell.width for cells_ in cells.values() for cell in cells_)
    columns = max(1, min(columns, len(played.shown)))
    heights = [_BAR_PX + _GAP_PX]
    for pictures in cells.values():
        rows = -(-len(pictures) // columns)
        heights.append(_BAR_PX + rows * (pictures[0].height + _BAR_PX + _GAP_PX))
    width = max(width, 110)
    sheet = Image.new("RGB", (columns * (width + _GAP_PX) + _GAP_PX, sum(heights)), _BACK)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    draw.text((_GAP_PX, 4), _title(played), fill=_TEXT, font=font)
    top = heights[0]
    for key, pictures in cells.items():
        draw.text((_GAP_PX, top), key, fill=(150, 190, 255), font=font)
        top += _BAR_PX
        for i, picture in enumerate(pictures):
            left = _GAP_PX + (i % columns) * (width + _GAP_PX)
            y = top + (i // columns) * (picture.height + _BAR_PX + _GAP_PX)
            sheet.paste(picture, (left, y))
            text, colour = _caption(played, int(played.shown[i]))
            draw.text((left, y + picture.height + 2), text, fill=colour, font=font)
        top += -(-len(pictures) // columns) * (pictures[0].height + _BAR_PX + _GAP_PX)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def _title(played: EpisodeArrays) -> str:
    e = played.episode
    return f"{e.name}   {e.robot}   {e.task}   {e.steps} steps   return {e.total:.4g}"


def _caption(played: EpisodeArrays, step: int) -> tuple[str, tuple[int, int, int]]:
    text = f"{step}  {played.time_s[step]:.1f}s  {played.reward[step]:.3g}"
    for flag, word, colour in _MARKS:
        if played.flags[flag][step]:
            return f"{text} {word}", colour
    return text, _TEXT


def _sized(picture: np.ndarray) -> Image.Image:
    """Enlarge a small picture (H, W, 3) by a whole factor, and reduce a large one."""
    image, longest = Image.fromarray(picture), max(picture.shape[:2])
    if longest < _LEAST_PX:
        factor = -(-_LEAST_PX // longest)
        size = image.width * factor, image.height * factor
        return image.resize(size, Image.Resampling.NEAREST)
    if longest > _MOST_PX:
        size = image.width * _MOST_PX // longest, image.height * _MOST_PX // longest
        return image.resize((max(1, size[0]), max(1, size[1])), Image.Resampling.BOX)
    return image


def film(played: EpisodeArrays, *, fps: float) -> bytes:
    """Encode the images of an episode, all cameras side by side, as a GIF that repeats."""
    frames = []
    for i, step in enumerate(played.shown.tolist()):
        pictures = [_sized(images[i]) for images in played.frames.values()]
        width = sum(p.width for p in pictures)
        height = max(p.height for p in pictures)
        frame = Image.new("RGB", (max(width, 160), height + _BAR_PX), _BACK)
        left = 0
        for picture in pictures:
            frame.paste(picture, (left, 0))
            left += picture.width
        text, colour = _caption(played, step)
        font = ImageFont.load_default()
        ImageDraw.Draw(frame).text((4, height + 2), text, fill=colour, font=font)
        frames.append(frame.quantize(_COLOURS))
    out = io.BytesIO()
    pause_ms = max(20, round(1000 / fps))
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=pause_ms, loop=0)
    return out.getvalue()


def plot(played: EpisodeArrays) -> bytes:
    """Draw reward, actions, vectors, flags and policy version over time, as a PNG."""
    from matplotlib.figure import Figure

    panels = 3 + len(played.vectors)
    figure = Figure(figsize=(10, 1.6 * panels + 0.8), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(_title(played), fontsize=10)
    _reward(axes[0], played)
    names = played.spec.action.names
    _numbers(axes[1], played, played.action, "action", names)
    if not played.spec.action.discrete:
        axes[1].set_ylim(-1.1, 1.1)
    for axis, (key, values) in zip(axes[2:], played.vectors.items(), strict=False):
        _numbers(axis, played, values, key, getattr(played.spec.vectors[key], "names", ()))
    _flags(axes[-1], played)
    axes[-1].set_xlabel("seconds since the first step")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _reward(axis: Any, played: EpisodeArrays) -> None:
    good = np.where(np.isfinite(played.reward), played.reward, 0.0)
    axis.plot(played.time_s, good, color="tab:green", lw=1, label="reward")
    axis.set_ylabel("reward")
    total = axis.twinx()
    total.plot(played.time_s, np.cumsum(good), color="tab:gray", lw=1, ls="--")
    total.set_ylabel("sum so far", color="tab:gray")
    _shade(axis, played)


def _numbers(
    axis: Any, played: EpisodeArrays, values: np.ndarray, name: str, names: tuple[str, ...]
) -> None:
    """Draw ``values`` (n, size): few numbers as lines, many as shades."""
    axis.set_ylabel(name)
    time = played.time_s
    if values.shape[1] > _LINES and len(time) > 1:
        shades = np.where(np.isfinite(values), values, 0.0).T
        axis.imshow(
            shades, aspect="auto", origin="lower", interpolation="nearest",
            extent=(time[0], time[-1], -0.5, len(shades) - 0.5), cmap="viridis",
        )  # fmt: skip
        return
    labels = names if len(names) == values.shape[1] else tuple(map(str, range(values.shape[1])))
    for i, label in enumerate(labels):
        axis.plot(time, values[:, i], lw=0.9, label=label)
    if labels:
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, frameon=False)
    _shade(axis, played)


def _shade(axis: Any, played: EpisodeArrays) -> None:
    """Shade the steps in which a person acted, and those that may not be learnt from."""
    for flag, wrong, colour in (("is_intervention", True, "orange"), ("is_valid", False, "red")):
        on = played.flags[flag] == wrong
        edges = np.flatnonzero(np.diff(np.concatenate([[False], on, [False]]).astype(np.int8)))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            end = played.time_s[min(stop, len(on) - 1)]
            axis.axvspan(played.time_s[start], end, color=colour, alpha=0.15, lw=0)


def _flags(axis: Any, played: EpisodeArrays) -> None:
    rows = [
        ("first", played.flags["is_first"], "tab:green"),
        ("last", played.flags["is_last"], "tab:blue"),
        ("terminal", played.flags["is_terminal"], "tab:red"),
        ("by a person", played.flags["is_intervention"], "tab:orange"),
        ("invalid", ~played.flags["is_valid"], "black"),
    ]
    for row, (_, on, colour) in enumerate(rows):
        times = played.time_s[on]
        axis.scatter(times, np.full(len(times), row), marker="|", s=60, color=colour)
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    version = axis.twinx()
    version.step(played.time_s, played.version, where="post", color="tab:gray", lw=1)
    version.yaxis.get_major_locator().set_params(integer=True)
    version.set_ylabel("policy version", color="tab:gray")

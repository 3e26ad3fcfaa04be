"""Renders fast on a CPU: one persistent context, with every costly effect turned off.

At the size of a network's image, rendering takes nearly all the time of a pixel task. The size of
the image hardly matters; multi-sampling, shadows, reflections and finely divided primitives do.
MuJoCo's own ``Renderer`` would be enough, but it frees its OpenGL objects in whatever context is
current then, which with several renderers in a process can spoil the images of another one.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref

import mujoco
import numpy as np

#: what the model's ``visual/quality`` is set to; read by MuJoCo when the context is made
QUALITY = {"offsamples": 0, "shadowsize": 0, "numslices": 12, "numstacks": 6, "numquads": 1}
#: what is not drawn; the skybox stays, since without it the background is black
FLAGS_OFF = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
#: a floor is drawn as a grid of quads for the sake of its lighting, and a wide floor as very many
MAX_QUADS_PER_SIDE, MAX_QUADS = 400, 10_000
MAX_GEOMS = 1000
#: cameras of these kinds keep their direction; standing ones do when the world carries them
TRACKING = (mujoco.mjtCamLight.mjCAMLIGHT_TRACK, mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
STANDING = mujoco.mjtCamLight.mjCAMLIGHT_FIXED
FAR = 1.0  #: depth of a pixel that nothing was drawn on
FONT_SCALE = 100  # MuJoCo wants one, no text is drawn

_open: weakref.WeakSet[Camera] = weakref.WeakSet()


def lower_quality(model: mujoco.MjModel, *, size: int) -> None:
    """Set in ``model`` what makes images of ``size`` pixels cheap; the physics stays as it is."""
    for name, value in QUALITY.items():
        setattr(model.vis.quality, name, value)
    model.vis.global_.offheight = model.vis.global_.offwidth = size
    planes = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    half_x, half_y, spacing = model.geom_size[planes].T  # in metres; spacing is that of the grid
    longest, area = 2 * np.maximum(half_x, half_y), 4 * half_x * half_y
    coarsest = np.maximum(longest / MAX_QUADS_PER_SIDE, np.sqrt(area / MAX_QUADS))
    model.geom_size[planes, 2] = np.maximum(spacing, coarsest)


class Camera:
    """Renders images of one model from one of its cameras.

    The OpenGL context comes into being with the first image and belongs to the thread that takes
    it: all later images must be taken, and the camera closed, in the same thread.

    Args:
        model: MuJoCo model; its visual quality is lowered in place.
        size: height and width of the image in pixels.
        camera: index of a camera of the model.
    """

    def __init__(self, model: mujoco.MjModel, *, size: int, camera: int) -> None:
        lower_quality(model, size=size)
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, size, size)
        self._option = mujoco.MjvOption()
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._view.fixedcamid = self._camera = camera
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        for flag in FLAGS_OFF:
            self._scene.flags[flag] = False
        self._gl: mujoco.GLContext | None = None
        self._thread: int | None = None  # that the context belongs to
        self._context: mujoco.MjrContext | None = None
        self._sky: np.ndarray | None = None  # (H, W, 3) uint8 upside down, where it never changes

    def image(self, data: mujoco.MjData) -> np.ndarray:
        """Render the state in ``data`` as a new image (H, W, 3) uint8 RGB."""
        gl = self._gl or self._start(data)
        self._check_thread()
        gl.make_current()
        self._update(data, mujoco.mjtCatBit.mjCAT_ALL)
        if self._sky is None:
            image = self._draw()
        else:
            depth = np.empty(self._sky.shape[:2], np.float32)
            image = self._draw(depth)
            np.copyto(image, self._sky, where=(depth == FAR)[:, :, None])
        return np.ascontiguousarray(image[::-1])

    def close(self) -> None:
        """Free the OpenGL context; the next image would make a new one."""
        if self._gl is None:
            return
        self._check_thread()
        gl, context, self._gl, self._context = self._gl, self._context, None, None
        self._thread = None
        self._sky, self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = None, True
        gl.make_current()
        if context is not None:
            context.free()
        gl.free()

    def __del__(self) -> None:
        if getattr(self, "_thread", None) == threading.get_ident():
            self.close()

    def _check_thread(self) -> None:
        if self._thread != threading.get_ident():
            raise RuntimeError(
                "this camera belongs to the thread that took its first image; "
                "make, step and close an environment in one thread"
            )

    def _start(self, data: mujoco.MjData) -> mujoco.GLContext:
        gl = _gl_context(self._rect.width, self._rect.height)
        gl.make_current()
        self._context = mujoco.MjrContext(self._model, FONT_SCALE)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._gl, self._thread = gl, threading.get_ident()
        # MuJoCo ends its connection to EGL at exit, in a hook that the first context has just
        # registered. Hooks run last in, first out: ours must be registered after it.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        _open.add(self)
        self._keep_sky(data)
        return gl

    def _keep_sky(self, data: mujoco.MjData) -> None:
        """Draw the sky once if the camera does not turn; at infinity, nothing else changes it.

        Every geom must be opaque, since a transparent one is mixed with the sky behind it.
        """
        mode = mujoco.mjtCamLight(int(self._model.cam_mode[self._camera]))
        on_world = self._model.cam_bodyid[self._camera] == 0
        self._update(data, mujoco.mjtCatBit.mjCAT_ALL)
        geoms = self._scene.geoms[: self._scene.ngeom]
        if (mode in TRACKING or (mode == STANDING and on_world)) and all(
            geom.rgba[3] == 1.0 for geom in geoms
        ):
            self._update(data, 0)
            self._sky = self._draw()
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False

    def _update(self, data: mujoco.MjData, what: int) -> None:
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._view, what, self._scene
        )

    def _draw(self, depth: np.ndarray | None = None) -> np.ndarray:
        """Draw (H, W, 3) uint8, upside down; ``depth`` (H, W) becomes ``FAR`` on the sky."""
        image = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(image, depth, self._rect, self._context)
        return image


def _gl_context(width: int, height: int) -> mujoco.GLContext:
    """Make an OpenGL context of the kind that ``MUJOCO_GL`` names now, not at import."""
    kind = os.environ.get("MUJOCO_GL", "").lower()
    try:
        if kind == "egl":
            from mujoco.egl import GLContext
        elif kind == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco import GLContext
        return GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise RuntimeError(
            f"no OpenGL context with MUJOCO_GL={kind!r} ({error}); for rendering without a screen "
            "set it to egl and install, on Debian: libegl1 libegl-mesa0 libgl1-mesa-dri"
        ) from error


def _close_all() -> None:
    for camera in list(_open):
        if camera._thread == threading.get_ident():
            camera.close()

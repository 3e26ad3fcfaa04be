"""The fast camera shows what dm_control shows, and many cameras do not disturb one another."""

import os
import subprocess
import sys
import threading

import gymnasium
import numpy as np
import pytest

import sim

pytestmark = pytest.mark.mujoco

# dm_control keeps its own record of the current OpenGL context, so it renders in a process apart.
# The state is that of our task; the flags are set to ours, and the sky is drawn in every image.
DM_CONTROL = """
import sys
import mujoco, numpy as np
from sim.camera import FLAGS_OFF, lower_quality
from sim.suite import camera_of, load

states = np.load(sys.argv[1], allow_pickle=False)
images = {}
for name in states.files:
    env = load(name)
    env.reset()
    lower_quality(env.physics.model.ptr, size=64)
    mujoco.mj_setState(
        env.physics.model.ptr, env.physics.data.ptr, states[name], mujoco.mjtState.mjSTATE_PHYSICS
    )
    with env.physics.model.disable("actuation"):
        env.physics.forward()
    off = {flag: False for flag in FLAGS_OFF}
    images[name] = env.physics.render(
        64, 64, camera_id=camera_of(name), render_flag_overrides=off
    )
    env.physics.free()
np.savez(sys.argv[2], **images)
"""

# Those whose model has nothing drawn by chance, such as the place of a target.
FIXED_LOOKS = [n for n in sim.SUITE_TASKS if not n.startswith(("reacher", "finger_turn"))]


def test_images_are_those_of_dm_control_with_the_same_flags(tmp_path):
    import mujoco

    ours, states = {}, {}
    for name in FIXED_LOOKS:
        env = gymnasium.make(f"sim:{name}")
        task = env.unwrapped
        env.reset(seed=5)
        for _ in range(3):
            ours[name] = env.step(env.action_space.high)[0]["image"]
        state = np.empty(mujoco.mj_stateSize(task._model, mujoco.mjtState.mjSTATE_PHYSICS))
        mujoco.mj_getState(task._model, task._data, state, mujoco.mjtState.mjSTATE_PHYSICS)
        states[name] = state
        env.close()
    np.savez(tmp_path / "states.npz", **states)
    subprocess.run(
        [sys.executable, "-c", DM_CONTROL, tmp_path / "states.npz", tmp_path / "images.npz"],
        check=True,
        capture_output=True,
        timeout=300,
    )
    with np.load(tmp_path / "images.npz", allow_pickle=False) as theirs:
        for name in FIXED_LOOKS:
            apart = np.abs(ours[name].astype(int) - theirs[name])
            assert apart.mean() < 0.5, name
            assert (apart > 16).mean() < 0.01, name


@pytest.mark.parametrize(
    "name", ["cheetah_run", "quadruped_walk", "finger_spin", "acrobot_swingup"]
)
def test_a_cached_sky_equals_one_that_is_rendered(name):
    import mujoco

    from sim.camera import Camera

    env = gymnasium.make(f"sim:{name}")
    env.reset(seed=0)
    task = env.unwrapped
    drawn = Camera(task._model, size=64, camera=task.metadata["camera"])
    drawn.image(task._data)
    drawn._sky, drawn._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = None, True
    for _ in range(20):
        image = env.step(env.action_space.sample())[0]["image"]
        np.testing.assert_array_equal(image, drawn.image(task._data))
    assert task._camera._sky is not None
    drawn.close()
    env.close()


def test_images_vary_over_time_and_between_tasks():
    envs = [gymnasium.make(f"sim:{name}") for name in ("cartpole_swingup", "walker_walk", "seek")]
    firsts = [env.reset(seed=0)[0]["image"] for env in envs]
    for _ in range(10):  # in turns, so that each must take its own context up again
        lasts = [env.step(env.action_space.high)[0]["image"] for env in envs]
    for first, last in zip(firsts, lasts, strict=True):
        assert first.std() > 10
        assert not np.array_equal(first, last)
    assert not np.array_equal(lasts[0], lasts[1])
    for env in envs:
        env.close()


def test_closing_one_camera_leaves_the_others_as_they_were():
    one, other = gymnasium.make("sim:seek"), gymnasium.make("sim:walker_walk")
    before = other.reset(seed=0)[0]["image"]
    one.reset(seed=0)
    one.close()
    np.testing.assert_array_equal(before, other.reset(seed=0)[0]["image"])
    one.close()  # once more does nothing
    other.close()


def test_a_task_works_on_after_close():
    env = gymnasium.make("sim:seek")
    before = env.reset(seed=0)[0]["image"]
    env.close()
    np.testing.assert_array_equal(before, env.reset(seed=0)[0]["image"])
    env.close()


def test_leaving_without_closing_is_silent():
    code = (
        "import gymnasium\n"
        "envs = [gymnasium.make('sim:' + name) for name in ('seek', 'cartpole_swingup')]\n"
        "for env in envs: env.reset(seed=0)\n"
        "del envs[0]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_camera_used_in_another_thread_says_so():
    env = gymnasium.make("sim:seek")
    env.reset(seed=0)
    said = []

    def step_elsewhere():
        try:
            env.step(env.action_space.low)
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Thread(target=step_elsewhere, name="elsewhere")
    thread.start()
    thread.join(timeout=300)
    assert "in one thread" in said[0]
    env.close()


def run_with(code, **variables):
    env = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**env, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_rendering_is_headless_even_when_mujoco_was_imported_first():
    code = "import mujoco, gymnasium; gymnasium.make('sim:seek').reset(seed=0)"
    done = run_with(code)
    assert done.returncode == 0, done.stderr


def test_without_opengl_the_error_says_what_to_install():
    done = run_with("import gymnasium; gymnasium.make('sim:seek').reset()", MUJOCO_GL="disable")
    assert done.returncode != 0
    assert "libegl1 libegl-mesa0 libgl1-mesa-dri" in done.stderr

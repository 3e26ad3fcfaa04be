"""Lists every reason why the robot does not act as its policy wants: how bad, why, what to do.

A reason is one word, which counters and logs use.  Nothing stops the robot without a row here; no
ROS.
"""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, ERROR = 0, 1, 2  #: levels, as ``diagnostic_msgs/DiagnosticStatus`` counts them


@dataclass(frozen=True, slots=True)
class Reason:
    """Describes one reason of a safe action."""

    level: int  #: ``WARN`` or ``ERROR``: what diagnostics show while it lasts
    sentence: str  #: what is wrong, for people
    advice: str  #: what to do about it
    urgent: bool = False  #: the log says it at once; the others when they have lasted a second

    def text(self, detail: str = "") -> str:
        """Join sentence, what is known in detail, and advice."""
        about = f" ({detail})" if detail else ""
        return f"{self.sentence}{about}; {self.advice}"


REASONS: dict[str, Reason] = {
    "inactive": Reason(
        WARN,
        "the node is not active and sends nothing",
        "activate it: ros2 lifecycle set, or the parameter autostart",
    ),
    "no_policy": Reason(
        WARN,
        "there is no policy yet",
        "give policy_dir a folder with a policy, or let the trainer publish one",
    ),
    "no_frame": Reason(
        ERROR,
        "no new message of the sensor that sets the pace",
        "see whether its driver runs and publishes on this topic",
    ),
    "frame_refused": Reason(
        ERROR,
        "a sensor's messages do not fit the policy",
        "change the driver's settings, or give a policy that was trained for them",
        urgent=True,
    ),
    "no_sensor": Reason(
        ERROR,
        "a sensor has no message near enough to the observation's stamp",
        "see whether its driver runs, comes often enough for tolerance_s, and stamps by the clock",
    ),
    "camera_slow": Reason(
        ERROR,
        "the camera is too slow for the policy",
        "raise the camera's rate, or allow longer repeats by max_gap_s and slow_camera",
    ),
    "no_clock": Reason(
        ERROR,
        "use_sim_time is set and no /clock has come",
        "start the simulator, or set use_sim_time to false on a real robot",
    ),
    "clock_stopped": Reason(
        ERROR,
        "the simulated clock stands still",
        "see whether the simulator runs or is paused",
    ),
    "stale_stamp": Reason(
        ERROR,
        "the observation's stamp is too old, or zero",
        "set the clocks of driver and robot alike (use_sim_time, chrony), or raise max_obs_age_s",
    ),
    "stamp_in_future": Reason(
        ERROR,
        "the observation's stamp lies ahead of the clock",
        "set the clocks of driver and robot alike; with use_sim_time see whether /clock comes",
    ),
    "nan_obs": Reason(
        ERROR,
        "a measurement is not a finite number",
        "see what the sensor's driver publishes",
        urgent=True,
    ),
    "frozen_frame": Reason(
        ERROR,
        "the camera repeats the same image",
        "restart its driver; frozen_s says how long counts, frozen_frames how many",
    ),
    "policy_failed": Reason(
        ERROR,
        "the policy failed on this observation",
        "see the log; go back to an older policy",
        urgent=True,
    ),
    "policy_slow": Reason(
        ERROR,
        "the policy's steps take longer than they may",
        "take a smaller policy or a faster computer; inference_deadline_s says how long they may",
        urgent=True,
    ),
    "nan_action": Reason(
        ERROR,
        "the policy's action is not a finite number",
        "go back to an older policy",
        urgent=True,
    ),
    "no_pose": Reason(
        ERROR,
        "where the joints are is not known, so their limits of rate cannot be kept",
        "add a sensor with these joints, see whether it publishes them, or state no max_rate",
    ),
    "pose_out_of_range": Reason(
        ERROR,
        "the joints are farther outside of the command's range than one step leads back",
        "move them into the range by hand or by a takeover of the driver, or widen the range",
    ),
    "surprised": Reason(
        ERROR,
        "the policy sees what it does not expect",
        "see what has changed before the robot; surprise_limit and surprise_action decide",
        urgent=True,
    ),
    "no_episode": Reason(
        WARN,
        "the episode is over and the next one has not begun",
        "call ~/episode/start, or wait for the pause that the robot file states",
    ),
    "resetting": Reason(
        WARN,
        "the episode is over and the reset service is at work",
        "wait; reset.wait_s of the robot file says for how long",
    ),
    "reset_failed": Reason(
        ERROR,
        "the reset service failed, is not there or does not answer",
        "put the robot back by hand and call ~/episode/start, or ~/episode/end to call it again",
    ),
    "latched": Reason(
        ERROR,
        "the robot stays stopped since then, by latch_safe or for its own sake",
        "mend the cause, then call ~/rearm",
    ),
    "emergency_stop": Reason(
        ERROR,
        "the emergency stop was pressed",
        "release it, then call ~/rearm",
        urgent=True,
    ),
    "emergency_silent": Reason(
        ERROR,
        "the emergency stop has fallen silent",
        "see whether its driver runs, then call ~/rearm",
        urgent=True,
    ),
    "emergency_missing": Reason(
        ERROR,
        "the emergency stop that was declared has not been heard",
        "start its driver, or see emergency_stop_topic and emergency_stop_timeout_s",
    ),
    "takeover": Reason(
        WARN,
        "a person drives the robot",
        "the policy acts again when the commands of the takeover cease",
        urgent=True,
    ),
    "not_started": Reason(
        WARN,
        "the policy waits to be started",
        "call ~/run, or set run_on_start",
    ),
    "run_over": Reason(
        WARN,
        "the time that the policy was to run is over",
        "call ~/run to let it act again",
        urgent=True,
    ),
    "stopped": Reason(
        WARN,
        "the node is being stopped",
        "activate it again",
    ),
}

_SENSOR = "no_"  #: before the name of a sensor


def reason_of(word: str) -> Reason:
    """Look up a reason; ``no_<sensor>`` is ``no_sensor`` with the sensor's name.

    An unknown word is an error too: the robot stops, so it is not well.
    """
    if word in REASONS:
        return REASONS[word]
    if word.startswith(_SENSOR):
        row, name = REASONS["no_sensor"], word.removeprefix(_SENSOR)
        return Reason(
            row.level, row.sentence.replace("a sensor", f"the sensor {name!r}"), row.advice
        )
    return Reason(ERROR, f"the policy does not act: {word}", "see the log")

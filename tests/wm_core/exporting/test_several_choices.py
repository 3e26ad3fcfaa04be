"""The exported file of a policy that makes several choices at once, against torch."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.conformance import check_policy
from wm_core.contract.golden import PARITY, check_golden, read_golden, rollout
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.eight_bits import make_int8
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.quantize import unfused

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("preset", "groups"),
    [
        ("dreamer_v3", (3, 2)),
        pytest.param("dreamer_v2", (2, 2, 2), marks=pytest.mark.slow),
        pytest.param("twm", (2, 4), marks=pytest.mark.slow),
        pytest.param("world_models", (3, 2), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_fifty_steps_with_resets_agree_with_torch(preset, groups, small, shaken, tmp_path):
    parts = small(preset, groups=groups, vectors=True)
    agent, action = parts.agent(), parts.spec.action
    shaken(agent, 2)
    exporter = PolicyExporter(agent, parts.spec, parts.config)
    export = exporter.export(1, 0, 0, 50)
    runner, golden = PolicyRunner.from_bytes(export.onnx), read_golden(export.golden)
    assert runner.spec == parts.spec
    assert golden["in/is_first"].sum() > 2
    assert check_golden(export.golden, runner.card, runner.call) <= PARITY
    chosen, command = golden["out/action"], golden["out/command"]
    assert action.is_chosen(chosen).all()
    np.testing.assert_array_equal(command, [action.to_physical(row) for row in chosen])
    assert golden["gap/action"].shape == (50, len(groups))
    for i, size in enumerate(groups):
        assert len({*command[:, i]}) == size or preset == "world_models", "each choice is drawn"
    PolicyFolder(tmp_path).write(*export, version=1)
    check_policy(tmp_path)

    feeds = [feed for feed, _ in rollout(golden, runner.card)]
    made = make_int8(export, exporter.step, feeds)
    quantized = PolicyRunner.from_bytes(made.onnx)
    for call in (quantized.call, unfused(made.onnx)):
        assert check_golden(made.golden, quantized.card, call) <= quantized.card.tolerance.largest

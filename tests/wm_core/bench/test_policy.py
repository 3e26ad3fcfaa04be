import json

import pytest

from wm_core.bench.policy import run
from wm_core.contract.errors import SettingsError

pytestmark = pytest.mark.long


def test_every_variant_gets_its_three_quantiles_in_order(capsys):
    assert run(["--json", "--sizes", "micro", "--ticks", "20", "--rate-hz", "500"]) == 0
    first, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["name"] == "run"
    for variant in ("fp32", "torch"):
        got = [r["value"] for r in rows if r["name"].startswith(f"policy/micro/{variant}/")]
        assert len(got) == 3
        assert 0 < got[0] <= got[1] <= got[2]
    assert {r["unit"] for r in rows} == {"ms"}


def test_an_unknown_size_is_refused_naming_the_nearest():
    with pytest.raises(SettingsError, match="micro"):
        run(["--sizes", "mirco"])

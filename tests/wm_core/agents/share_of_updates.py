"""Computes one worker's share of some updates: ``RANK SIZE FOLDER``, as a process of its own.

Each case is a file of the folder, with settings and the joined batch; the first worker leaves the
weights and the metrics beside it.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import Spec
from wm_core.nn import joined


def learn(case: dict, place: joined.Place = joined.Place()) -> tuple[dict, list[dict]]:  # noqa: B008
    """The weights, and the metrics of each update, after the updates of ``case``."""
    spec, config = Spec.model_validate(case["spec"]), Config.model_validate(case["config"])
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    batch = Batch(**case["batch"])
    share = len(batch.reward) // place.size
    own = batch.map(lambda x: x[place.rank * share : (place.rank + 1) * share])
    with joined.joining(place):
        metrics = [agent.update(own, None, generator)[0] for _ in range(case["updates"])]
    state = {k: v for k, v in agent.state_dict().items() if isinstance(v, torch.Tensor)}
    return state, metrics


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "meeting"), size)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=240)
    )
    for path in sorted(folder.glob("*.case")):
        case = torch.load(path, weights_only=True)
        state, metrics = learn(case, joined.Place(rank, size))
        torch.save({"state": state, "metrics": metrics}, path.with_suffix(f".{rank}"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

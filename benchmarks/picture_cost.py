"""Measure what JPEG pictures save and cost: bytes of a step, encoding, checking, replay.

The camera is simulated: a scene that moves, and in each pixel the noise of a sensor, shot noise
that grows with light and read noise that does not.

    python benchmarks/picture_cost.py --json
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.spec import ActionSpec, Frozen, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_step, join_steps
from wm_core.format.pictures import decode_picture, encode_picture
from wm_core.replay.sampler import Sampler
from wm_core.store.examine import check
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store

SIZES = {"64": (64, 64), "vga": (480, 640)}
STEPS = {"64": 64, "vga": 16}  #: of a chunk, and how many chunks
CHUNKS = {"64": 32, "vga": 6}
WINDOWS = {"64": (16, 64), "vga": (2, 16)}  #: of a batch, and their length
#: electrons of a white pixel, and deviation of the read noise in grey levels; none: a simulator
LIGHT = {"simulated": (0.0, 0.0), "bright": (10_000.0, 1.0), "indoor": (2_000.0, 2.0)}
CODECS = {"zstd": {}, "jpeg": {"image": "jpeg"}}


class Settings(Frozen):
    """Measure lossless images and JPEG pictures by size and light."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    batches: int = Field(20, gt=0, description="Batches that each store is asked for")


def frame(number: int, image: ImageSpec, electrons: float, read: float) -> np.ndarray:
    """Make frame ``number``, (H, W, 3) uint8."""
    rng = np.random.default_rng(number)
    rows, cols = np.mgrid[0 : image.height, 0 : image.width] / image.height
    shade = 110 + 50 * np.sin(7 * cols + number / 20) + 40 * np.cos(9 * rows)
    shade = np.where((rows - 0.5) ** 2 + (cols - 0.4) ** 2 < 0.04, 200.0, shade)
    scene = shade[..., None] * np.array([1.0, 0.85, 0.7])
    if electrons:
        seen = rng.poisson(np.maximum(scene, 0) / 255 * electrons) * 255 / electrons
        scene = seen + rng.normal(0, read, scene.shape)
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8)


def main(settings: Settings) -> None:
    """Measure and report."""
    with Report("picture cost", as_json=settings.json_) as report:
        for size, (height, width) in SIZES.items():
            image = ImageSpec(height=height, width=width)
            spec = Spec(images={"image": image}, action=ActionSpec(low=(-1.0,), high=(1.0,)))
            for light, noise in LIGHT.items():
                count = STEPS[size]
                frames = [frame(i, image, *noise) for i in range(count * CHUNKS[size])]
                pixels(report, f"picture/{size}_{light}", image, frames[:count])
                for codec in CODECS:
                    report.progress(f"{size} {light} {codec}")
                    with tempfile.TemporaryDirectory() as folder:
                        stored(report, size, light, codec, spec, frames, Path(folder), settings)


def pixels(report: Report, name: str, image: ImageSpec, frames: list[np.ndarray]) -> None:
    """Report what one picture costs, and how far it is from its image."""
    begin_s = time.process_time()
    pictures = [encode_picture(pixels, image) for pixels in frames]
    encode_s = time.process_time() - begin_s
    begin_s = time.process_time()
    decoded = [decode_picture(picture, image) for picture in pictures]
    decode_s = time.process_time() - begin_s
    error = np.mean(
        [(a.astype(np.float32) - b) ** 2 for a, b in zip(frames, decoded, strict=True)]
    )
    report.add(f"{name}/encode", 1e3 * encode_s / len(frames), "ms")
    report.add(f"{name}/decode", 1e3 * decode_s / len(frames), "ms")
    report.add(f"{name}/psnr", 10 * np.log10(255**2 / max(error, 1e-9)), "dB")


def stored(
    report: Report,
    size: str,
    light: str,
    codec: str,
    spec: Spec,
    frames: list[np.ndarray],
    folder: Path,
    settings: Settings,
) -> None:
    """Report bytes and times of a store of ``frames``."""
    name, count = f"store/{size}_{light}/{codec}", STEPS[size]
    ledger, action = Ledger(folder / LEDGER_NAME), np.zeros(1, np.float32)
    total, seal_s, check_s = 0, 0.0, 0.0
    for seq in range(CHUNKS[size]):
        begin_s = time.process_time()
        meta = ChunkMeta(
            robot="r", session="0" * 32, seq=seq, spec=spec, first_step=seq * count, steps=count
        ).with_codecs(CODECS[codec])
        steps = [
            Step({"image": pixels}, action, 0.0, False, False, False, stamp_ns=i * 50_000_000)
            for i, pixels in enumerate(frames[seq * count :][:count], seq * count)
        ]
        data = join_steps([encode_step(step, spec, meta.codecs) for step in steps], meta)
        seal_s += time.process_time() - begin_s
        begin_s = time.process_time()
        check(data, meta.key, max_bytes=len(data))
        check_s += time.process_time() - begin_s
        total += len(data)
        key = ChunkKey(meta.robot, meta.session, seq)
        verdict = ingest(folder, ledger, key, data, hashlib.sha256(data).hexdigest())
        assert verdict.ok, verdict
    ledger.close()
    report.add(f"{name}/bytes", total / len(frames), "B/step")
    report.add(f"{name}/record", 1e3 * seal_s / len(frames), "ms/step")
    report.add(f"{name}/check", 1e3 * check_s / len(frames), "ms/step")
    batch, length = WINDOWS[size]
    for kind, cache_bytes in (("uncached", 0), ("cached", 2**31)):
        store = Store(folder, cache_bytes=cache_bytes)
        store.refresh()
        sampler = Sampler(
            store, batch=batch, length=length, rng=np.random.default_rng(0), online_queue=False
        )
        if cache_bytes:
            for segment in store.segments:
                store.observe(store.read(segment.rows(0, segment.length)))
        begin_s = time.process_time()
        for _ in range(settings.batches):
            sampler.sample()
        spent_s = time.process_time() - begin_s
        report.add(f"{name}/{kind}", settings.batches * batch / spent_s, "windows/s")
        store.close()


if __name__ == "__main__":
    main(tyro.cli(Settings))

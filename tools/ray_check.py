"""Kills an actor and then a machine under a job of `--engine ray`, starts it again, and compares with one process.

    python tools/ray_check.py diffmicv2_ham10000 ../shared/data/ham10000/images --count 3000 --broken 30

The two machines are two nodes of Ray on this one. What is printed is in docs/scaling.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from diffmiczoo.engines import BatchPredictor, predict_with_ray, read_results
from diffmiczoo.engines.ray_data import RayOptions
from diffmiczoo.engines.work import parts_of

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def processes(name: bytes) -> dict[int, int]:
    """Process number → kilobytes of memory, of processes whose command line holds a name."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if name in (entry / "cmdline").read_bytes():
                lines = (entry / "status").read_text().splitlines()
                found[int(entry.name)] = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
        except OSError:
            pass
    return found


class Killer(threading.Thread):
    """Kills an actor when a quarter of the parts is done, and a node when half is; notes how much memory is used."""

    def __init__(self, output: Path, parts: int, cluster: Any, node: Any) -> None:
        super().__init__(daemon=True)
        self.output, self.parts, self.cluster, self.node = output, parts, cluster, node
        self.killed: list[str] = []
        self.actor = self.driver = 0

    def run(self) -> None:
        while len(self.killed) < 2:
            done, actors = len(list(self.output.glob("part-*"))), processes(b"_ComputeAndWrite")
            self.actor = max([self.actor, *actors.values()])
            if not self.killed and 4 * done > self.parts and actors:
                os.kill(next(iter(actors)), signal.SIGKILL)
                self.killed.append(f"an actor at {done} of {self.parts} parts")
            elif len(self.killed) == 1 and 2 * done > self.parts:
                self.cluster.remove_node(self.node, allow_graceful=False)
                self.killed.append(f"a machine at {done} of {self.parts} parts")
            time.sleep(0.05)


@click.command()
@click.argument("model")
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=3000)
@click.option("--broken", default=30)
@click.option("--part", default=64)
def main(model: str, pictures: Path, count: int, broken: int, part: int) -> None:
    import ray
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as temporary:
        folder, output = Path(temporary, "pictures"), Path(temporary, "out")
        folder.mkdir()
        sources = sorted(path for path in pictures.iterdir() if path.is_file())
        for number in range(count):
            source, place = sources[number % len(sources)], folder / f"{number}{sources[0].suffix}"
            if number % (count // broken) == count // broken // 2:
                place.write_bytes(source.read_bytes()[:100])
            else:
                shutil.copyfile(source, place)
        paths = [path for each in parts_of(folder) for path in each.paths]
        began = time.monotonic()
        alone = BatchPredictor(model, device="cpu", threads=1)({"path": np.array(paths, dtype=object)})
        click.echo(f"one process, one thread: {time.monotonic() - began:.0f} s")

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        node = cluster.add_node(num_cpus=1)
        options = RayOptions(workers=2, part=part, patience=60)
        killer = Killer(output, len(parts_of(folder, part)), cluster, node)
        killer.start()
        for attempt in range(1, 6):
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            began = time.monotonic()
            try:
                found = predict_with_ray(folder, model, output, options=options, progress=False, device="cpu")
                text = f"finished, {found.computed} parts computed"
            except Exception as error:
                text = f"{type(error).__name__}: {str(error)[:160]}"
            done = len(list(output.glob("part-*")))
            click.echo(f"attempt {attempt}: {time.monotonic() - began:.0f} s, {done} parts there, {text}")
            ray.shutdown()
            if text.startswith("finished"):
                break
        table = read_results(output)
        same = all(table[name].to_pylist() == list(alone[name]) for name in ("id", "label", "error", "sha256"))
        probs = np.array(table["probs"].to_pylist(), dtype=np.float32)
        click.echo(f"killed: {'; '.join(killer.killed)}; an actor took at most {killer.actor // 1024} MB")
        click.echo(f"{len(table)} pictures, {sum(map(bool, table['error'].to_pylist()))} with an error")
        click.echo(f"the same as one process: {same and probs.tobytes() == alone['probs'].tobytes()}")
        cluster.shutdown()


if __name__ == "__main__":
    main()

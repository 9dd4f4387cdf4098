"""A real cluster of two nodes, one actor of which is killed: no picture is lost, none is there twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from factories import run_command
from PIL import Image

from diffmiczoo.engines import BatchPredictor, predict_with_ray, read_results
from diffmiczoo.engines.ray_data import RayOptions, job_of
from diffmiczoo.engines.results import arrow_table, write_part
from diffmiczoo.engines.work import parts_of

ray = pytest.importorskip("ray", reason="needs Ray")

pytestmark = pytest.mark.filterwarnings("ignore:this model is not trained")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Three hundred pictures, every sixtieth broken."""
    directory, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    contents = [rng.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(10)]
    for number in range(300):
        path = directory / f"{number}.png"
        path.write_bytes(b"broken") if number % 60 == 7 else Image.fromarray(contents[number % 10]).save(path)
    return directory


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def actors() -> list[int]:
    """Process numbers of the actors that compute."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"MapWorker(MapBatches(_ComputeAndWrite" in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            pass
    return found


def kill_one_when_work_is_done(output: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not killed:
        if len(list(output.glob("part-*"))) > 1 and (there := actors()):
            os.kill(there[0], signal.SIGKILL)
            killed.append(there[0])
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_a_killed_actor_loses_and_doubles_nothing(cluster, weights, pictures, tmp_path) -> None:
    paths = sorted(map(str, pictures.iterdir()), key=lambda path: int(Path(path).stem))
    predictor, output, killed = BatchPredictor(weights, device="cpu", threads=1), tmp_path / "out", list[int]()
    alone = predictor({"path": np.array(paths, dtype=object)})
    options = RayOptions(workers=2, part=10, patience=120)
    # A part that an earlier run of the same job has left.
    parts = parts_of(pictures, options.part)
    job = job_of(weights, predictor, parts)
    job.begin(output)
    there = predictor({"path": np.array(parts[4].paths, dtype=object)})
    write_part(arrow_table(there, 4), job.file_of(output, 4))

    killer = threading.Thread(target=kill_one_when_work_is_done, args=(output, killed))
    killer.start()
    result = predict_with_ray(pictures, weights, output, options=options, progress=False, device="cpu")
    killer.join()
    assert killed and (result.pictures, result.parts, result.computed, result.errors) == (300, 30, 29, 5)
    found = read_results(output)
    for name in ("id", "label", "error", "sha256"):
        assert found[name].to_pylist() == list(alone[name]), name
    probs = np.array(found["probs"].to_pylist(), dtype=np.float32)
    np.testing.assert_array_equal(probs, alone["probs"])
    assert sum(map(bool, found["error"].to_pylist())) == 5

    again = run_command("predict", pictures, "--model", weights, "--engine", "ray", "--output", output)
    assert again.exit_code == 2 and "holds results of another job (parts 30, now 2" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--overlay", "x"), "--overlay: not with --engine ray"),
        (("--format", "csv", "--resume"), "--format, --resume: not with --engine ray"),
        ((), "--engine ray needs --output DIR"),
    ],
)
def test_what_does_not_go_together_is_refused(weights, pictures, arguments, message) -> None:
    result = run_command("predict", pictures, "--model", weights, "--engine", "ray", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_options_of_the_engine_alone_are_refused(weights, pictures) -> None:
    result = run_command("predict", pictures, "--model", weights, "--workers", "2")
    assert result.exit_code == 2 and "are for --engine ray" in result.stderr


def test_a_table_that_is_none_and_threads_are_refused_in_words(weights, tmp_path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"nothing")
    result = run_command(
        "predict", tmp_path / "t.parquet", "--model", weights, "--engine", "ray", "--output", tmp_path / "out"
    )
    assert result.exit_code == 2 and "t.parquet: cannot be read" in result.stderr
    with pytest.raises(ValueError, match="threads is for one process"):
        predict_with_ray(tmp_path, weights, tmp_path / "out", threads=2)

"""Models that are exported, and the one file of each kind: writing one takes many seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import small_model

from diffmiczoo.export import formats
from diffmiczoo.export.graph import ExportedModel
from diffmiczoo.inference.certificate import Certificate
from diffmiczoo.inference.limits import settings_of
from diffmiczoo.model import DiffMICv2
from diffmiczoo.trust.conformal import SetRule, SetRules
from diffmiczoo.trust.gate import fit_gate
from diffmiczoo.trust.selective import Deferral, Step
from diffmiczoo.trust.stored import Trust

# Which version that is, test_versions.py has.
collect_ignore_glob = [] if formats.has_new_torch() else ["test_[a-u]*.py"]

#: Half the size of other tests' pictures.
SMALL = {"image_size": 32, "roi_size": 16, "sampling_steps": 2, "num_samples": 2}

SETS = SetRules((SetRule(0.1, 0.3, (0.2, 0.3, None)), SetRule(0.2, 0.5, (0.34, 0.4, 0.4))), 60, (30, 22, 8))


def pictures(count: int = 9, size: int = 32) -> np.ndarray:
    """Squares (count, S, S, 3) uint8; the last one is unlike the others."""
    found = np.random.default_rng(0).integers(80, 180, (count, size, size, 3), dtype=np.uint8)
    found[-1] = 0
    found[-1, ::2] = 255
    return found


def trusting_model() -> DiffMICv2:
    """A model that is calibrated and has a gate, sets and deferral."""
    # OpenVINO halves no map of one pixel, which the last stage on ROIs of 16 pixels does.
    early = {"roi_out_index": 3, "local_out_index": 3}
    model = small_model(trained=True, class_names=("cat", "dog", "eel"), **early, **SMALL)
    model.config = model.config.replace(temperature=0.7, prior_weight=(0.4, 0.2), class_offsets=(0.1, 0.0, -0.1))
    features = model.embed(list(pictures(40)[:-1])).numpy()
    deferral = Deferral((Step(0.6, 300, 2), Step(0.9, 600, 300)), 700)
    model.trust = Trust(settings_of(model.config), fit_gate(features[:20], features[20:]), SETS, deferral)
    return model


@dataclass(frozen=True)
class Exported:
    model: DiffMICv2
    path: Path
    certificate: Certificate
    traced: bytes
    program: torch.export.ExportedProgram


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model with all that a file can hold, its file, its certificate, and what it was made from."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, path = trusting_model(), tmp_path_factory.mktemp("exported") / "small.onnx"
    programs, capture = [], formats._captured
    traced, finish = [], formats.without_traces

    def captured(graph: ExportedModel) -> torch.export.ExportedProgram:
        programs.append(capture(graph))
        return programs[0]

    def finished(proto: Any) -> None:
        traced.append(proto.SerializeToString())
        finish(proto)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_captured", captured)
        patch.setattr(formats, "without_traces", finished)
        certificate = model.export(path, defer_error=0.05, verify=list(pictures()), with_runner=True)
    return Exported(model, path, certificate, traced[0], programs[0])

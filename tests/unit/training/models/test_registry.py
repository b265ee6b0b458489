import dataclasses

import pytest

from latentserve_training.evaluate.suite import METRICS
from latentserve_training.export.manifest import load_schema
from latentserve_training.models.registry import KINDS
from latentserve_training.report.registry import FIGURES


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kind_is_complete(name, make_config):
    kind = KINDS[name]
    assert dataclasses.is_dataclass(kind.config)
    model = kind.build((1, 8, 8), make_config(name).model)
    schema = load_schema()["properties"]
    assert model.kind == name
    assert name in schema["kind"]["enum"]
    assert model.prior in schema["latent"]["properties"]["prior"]["enum"]
    assert set(model.metrics) <= METRICS.keys()
    assert set(model.plots) <= FIGURES.keys()
    operations = [operation for graph in model.graphs() for operation in graph.operations]
    assert len(operations) == len(set(operations))
    assert set(operations) <= schema["operations"]["properties"].keys()
    assert ("sample" in operations) == (model.prior != "none")

"""Every data set is scored by a network that has not seen it."""

from __future__ import annotations

from napari_svpseg.benchmark.unseen import first_unseen
from napari_svpseg.core.model_card import ModelCard


def test_the_first_network_that_has_not_seen_a_set_is_taken() -> None:
    def trained_on(name: str, **data: list[str]) -> ModelCard:
        return ModelCard(name, "svp", training={"config": {"data": data}})

    one = trained_on("one", datasets=["nuclei", "neurons:1,2"], validation=["yeast"])
    two = trained_on("two", datasets=["worms"], validation=["neurons"])
    found = {
        name: first_unseen([one, two], name)
        for name in ("nuclei", "yeast", "worms", "other", "neurons")
    }
    assert found == {
        "nuclei": two, "yeast": two, "worms": one, "other": one, "neurons": None
    }  # fmt: skip

"""Clusters of texts: the right texts are read, of one length, and planted clusters are found where there are some."""

import json

import numpy as np
import pytest
import torch

from geonb.coordinates import grammar
from geonb.coordinates.clusters import kernel_matrix, silhouettes
from geonb.coordinates.run import load_model, load_tokenizer
from geonb.coordinates.text_clusters import (
    TextClusters,
    labelled_texts,
    read_labelled,
    text_clusters,
    thetas_of,
    token_counts,
    untrained_model,
)
from geonb.coordinates.tokenizer import END
from geonb.errors import InputError
from tests.coordinates.small import small_coordinate_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_coordinate_run(tmp_path_factory.mktemp("clusters") / "run")


@pytest.mark.parametrize(("kind", "labels"), [("domain", 5), ("topic", 5), ("style", 3)])
def test_each_label_has_its_texts_and_the_seed_says_which(kind, labels):
    texts, given = labelled_texts(kind, 6, seed=1)
    assert len(set(texts)) == len(texts) == 6 * labels and all(given.count(one) == 6 for one in given)
    assert labelled_texts(kind, 6, seed=1) == (texts, given) != labelled_texts(kind, 6, seed=2)


def test_a_topic_is_the_thing_that_is_spoken_of_and_a_style_its_register():
    for text, thing in zip(*labelled_texts("topic", 8), strict=True):
        assert f" the {thing} " in text and thing in grammar.THINGS
    for text, register in zip(*labelled_texts("style", 8), strict=True):
        marks = {"formal": "hereby noted", "casual": "Well, "}
        assert [name for name, mark in marks.items() if mark in text] == [one for one in (register,) if one in marks]


def test_coordinates_and_counts_are_of_the_same_first_tokens(run):
    model, tokenizer = load_model(run), load_tokenizer(run)
    texts, _ = labelled_texts("domain", 3)
    thetas, counts = thetas_of(model, tokenizer, texts, length=12), token_counts(model, tokenizer, texts, length=12)
    assert counts.shape == (15, model.sizes.vocabulary) and (counts.sum(1) == 12).all()
    ids = tokenizer.encode(texts[4]).ids[:12]
    assert counts[4, ids[0]] == ids.count(ids[0])
    with torch.no_grad():
        expected = model(torch.tensor([[tokenizer.token_to_id(END), *ids]])).theta[0, -1]
    torch.testing.assert_close(thetas[4], expected)


def test_the_figures_are_those_of_the_kernel_with_the_untrained_model_beside_them(run):
    model, tokenizer, start = load_model(run), load_tokenizer(run), untrained_model(run)
    texts, labels = labelled_texts("style", 6)
    found = text_clusters(model, tokenizer, texts, labels, kind="style", untrained=start, permutations=99)
    means = []
    for one in (model, start):
        with torch.no_grad():
            thetas = thetas_of(one, tokenizer, texts)
            phases = torch.cat([layer.directions.phases(thetas) for layer in one.uses], dim=-1).double().numpy()
        means.append(silhouettes(1 - kernel_matrix(phases), labels).mean())
    assert found.trained.found.silhouette.value == pytest.approx(means[0], abs=1e-9)
    assert found.over_untrained.value == pytest.approx(means[0] - means[1], abs=1e-9)
    assert found.over_untrained.interval[0] <= found.over_untrained.value <= found.over_untrained.interval[1]
    assert TextClusters.from_json(found.to_json()) == found
    assert "before training" in found.to_text() and found.sentence in found.to_html()


def test_texts_that_share_no_word_are_clusters_and_shuffled_labels_are_none(run):
    model, tokenizer = load_model(run), load_tokenizer(run)
    texts = [word * 8 for word in ("lamp ", "x7 q ") for _ in range(1)] * 8
    texts = [f"{text}{place}" for place, text in enumerate(texts)]
    labels = ["lamp", "other"] * 8
    found = text_clusters(model, tokenizer, texts, labels, permutations=199)
    assert found.trained.found.p < 0.01 and found.untrained is None and "not known" in found.sentence
    mixed = [str(one) for one in np.random.default_rng(0).permutation(labels)]
    chance = text_clusters(model, tokenizer, texts, mixed, permutations=199).trained.found
    assert chance.silhouette.value < found.trained.found.silhouette.value


def test_a_file_of_groups_is_read_and_one_without_is_told(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "group": "ab"[n % 2]}) + "\n" for n in range(4)))
    assert read_labelled(path) == (["t0", "t1", "t2", "t3"], ["a", "b", "a", "b"])
    path.write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="has no group"):
        read_labelled(path)


def test_misuse_is_one_sentence(run):
    model, tokenizer = load_model(run), load_tokenizer(run)
    with pytest.raises(InputError, match="allowed are domain, topic, style"):
        labelled_texts("colour", 3)
    with pytest.raises(InputError, match="allowed are 2 or more"):
        labelled_texts("topic", 1)
    with pytest.raises(InputError, match="verses has 256"):
        labelled_texts("domain", 300)
    from geonb.coordinates.configuration import preset
    from geonb.coordinates.model import CoordinateModel

    with pytest.raises(InputError, match="of another size"):
        text_clusters(model, tokenizer, ["a", "b", "c"], list("xxy"), untrained=CoordinateModel(preset("B")))
    assert untrained_model(run.parent) is None

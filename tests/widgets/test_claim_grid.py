"""Several pictures of a claim in a grid, and one in a notebook's cell."""

import pytest

from geonb.errors import InputError
from geonb.widgets import claim_picture as pictures
from tests.tiny import pictures as still_pictures
from tests.widgets.test_claim_picture import marks, texts


def test_a_grid_draws_its_pictures_again_at_the_width_of_a_column():
    one = pictures.bar_picture({"a": 1.0}, y_title="CKA", title="first")
    grid = pictures.small_multiples([one, one, one], columns=2, title="all")
    inner = marks(grid, "svg")[1:]
    assert [svg.get("width") for svg in inner] == ["464"] * 3
    assert all(svg.get("viewBox").startswith("0 0 464 ") for svg in inner), "letters keep their size"
    assert inner[0].get("y") == inner[1].get("y") < inner[2].get("y") and texts(grid).count("first") == 3


def test_a_grid_takes_any_other_picture_at_its_own_measure():
    grid = pictures.small_multiples([str(pictures.bar_picture({"a": 1.0}, y_title="CKA"))], columns=1)
    assert marks(grid, "svg")[1].get("viewBox").startswith("0 0 760 ")


def test_a_grid_of_nothing_and_of_too_many_columns_is_refused():
    one = pictures.bar_picture({"a": 1.0}, y_title="CKA")
    for given_pictures, columns, sentence in (
        ([], 2, "no picture"),
        (["no"], 1, "no picture"),
        ([one], 9, "allowed are 1 to 3"),
    ):
        with pytest.raises(InputError, match=sentence):
            pictures.small_multiples(given_pictures, columns=columns)


def test_a_picture_is_shown_as_an_image_with_words():
    shown = pictures.show(pictures.bar_picture({"a <b>": 1.0}, y_title="CKA"), "bars <i>")
    assert shown.data.startswith('<img alt="bars &lt;i&gt;"') and "a <b>" in still_pictures(shown.data)[0]
    with pytest.raises(InputError, match="say in `alt`"):
        pictures.show(pictures.bar_picture({"a": 1.0}, y_title="CKA"), " ")
    with pytest.raises(InputError, match="no picture"):
        pictures.show("<b>", "alt")


def test_a_heat_of_counts_tells_counts_and_one_of_shares_tells_decimals():
    counts = pictures.heat_picture([[193, 84]], ["layer 0"], ["q", "k"], unit="dimensions")
    shares = pictures.heat_picture([[0.75, 1.0]], ["layer 0"], ["q", "k"], unit="")
    assert ">84<" in counts and "84.00" not in counts and ">1.00<" in shares

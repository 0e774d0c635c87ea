"""A configuration file is read completely: an unknown key is an error, and 1e-5 is a number."""

import pytest

from geonb.coordinates.configuration import Configuration, preset, read_configuration
from geonb.errors import InputError


def test_a_file_says_what_differs_from_a_preset_and_numbers_are_numbers(tmp_path):
    path = tmp_path / "small.yaml"
    # YAML 1.1 reads 1e-5 and 3e2 as text: they have no dot
    path.write_text("preset: tiny\nname: mine\nnorm_epsilon: 1e-5\nrope_base: 3e2\nlayers: 4\ndistinct_blocks: 2\n")
    read = read_configuration(path)
    assert (read.norm_epsilon, read.rope_base, read.layers, read.width) == (1e-5, 300.0, 4, preset("tiny").width)
    assert Configuration.from_json(read.to_json()) == read and "mine" in repr(read)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("wavelets: 64\n", "has the field 'wavelets'; allowed are preset, name"),
        ("layers: many\n", "layers"),
        ("layers: 2.5\n", "layers"),
        ("preset: E\n", "the preset 'E' was given; allowed are B, C, D, tiny"),
        ("heads: 6\nkey_value_heads: 4\n", "allowed is a divisor"),
        ("head_width: 15\n", "an even number"),
        ("rank: 65\n", "the smallest side"),
        ("factors: some\n", "allowed are shared and independent"),
        ("width: -3\n", "above 0"),
        ("just words\n", "holds no table"),
        ("a: [\n", "is no YAML"),
    ],
)
def test_what_a_file_must_not_say_is_told(tmp_path, text, told):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_configuration(path)


def test_no_file_is_told(tmp_path):
    with pytest.raises(InputError, match="one of the presets B, C, D, tiny"):
        read_configuration(tmp_path / "none.yaml")

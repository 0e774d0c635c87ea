"""A conversation is one text that grows: its cache is never stale, its answers are what reading all of it anew would say."""

import pytest
import torch

from geonb.coordinates.conversation import Conversation
from geonb.coordinates.reader import Reader
from geonb.coordinates.run import load_model, load_tokenizer
from geonb.coordinates.streaming import Streaming
from geonb.coordinates.tokenizer import END, train_tokenizer
from geonb.errors import InputError
from tests.coordinates.small import small_coordinate_run


@pytest.fixture(scope="module")
def model_and_words(tmp_path_factory):
    run = small_coordinate_run(tmp_path_factory.mktemp("conversation") / "run")
    return load_model(run), load_tokenizer(run)


def talk(model, words, **options):
    return Conversation(words, lambda: Reader(model), **{"max_tokens": 8, "decoding": "greedy", **options})


def test_every_answer_is_what_the_whole_text_read_anew_would_get(model_and_words):
    model, words = model_and_words
    said = talk(model, words)
    ids = [words.token_to_id(END)]
    for line in ("What is the colour of the lamp?", "And  its\nprice?", "And its age?"):
        before = len(said.made)
        pieces = list(said.reply(line))
        ids += words.encode(f"User: {' '.join(line.split())}\nAssistant:").ids
        for one in said.made[before:]:
            with torch.no_grad():
                assert one.token == int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if one.token != words.token_to_id(END):
                ids.append(one.token)
        ended = "\n" in words.decode([one.token for one in said.made[before:]])
        if not ended:
            ids += words.encode("\n").ids
        assert "\n" not in "".join(text for text, _ in pieces)
    assert said.forgotten == 0


def test_what_no_longer_fits_is_forgotten_and_the_rest_read_again(model_and_words):
    model, words = model_and_words
    said = talk(model, words)
    for turn in range(20):
        list(said.reply(f"What is the weight of the anchor in the field number {turn}?"))
    assert said.forgotten > 0
    assert said._reader.tokens <= model.sizes.context
    with pytest.raises(InputError, match="there is room for"):
        list(said.reply("the lamp " * 300))
    list(said.reply("And now?"))  # and it goes on


def test_a_seed_repeats_a_conversation(model_and_words):
    def answers(seed):
        said = talk(*model_and_words, decoding="nucleus", seed=seed)
        return ["".join(text for text, _ in said.reply(line)) for line in ("Who?", "Who?")]

    assert answers(1) == answers(1) != answers(2)


def test_an_answer_that_is_interrupted_is_read_on_from(model_and_words):
    said = talk(*model_and_words, max_tokens=30)
    reply = said.reply("What is the colour of the lamp?")
    next(reply)
    reply.close()
    assert list(said.reply("And the price?"))


def test_nothing_is_no_line(model_and_words):
    with pytest.raises(InputError, match="say something"):
        next(talk(*model_and_words).reply("  "))


@pytest.mark.parametrize("text", ["plain words", "Grüße — ça va? 日本語 🙂", "a\nb", ""])
def test_pieces_are_the_text_and_no_piece_is_half_a_letter(text):
    words = train_tokenizer(["plain words"], 262)
    stream = Streaming(words)
    pieces = [stream.add(token) for token in words.encode(text).ids]
    assert "".join(pieces) == text == stream.whole and "�" not in text


def test_bytes_that_are_no_letter_are_shown_as_one_sign_and_end():
    words = train_tokenizer(["plain"], 258)
    stream = Streaming(words)
    half = words.encode("é").ids[0]
    letter = words.encode("a").ids[0]
    pieces = [stream.add(token) for token in (half, letter)]
    assert "".join(pieces).endswith("a") and stream.whole.endswith("a")

"""`prepare`: what comes out reads back, what was left out is counted, and nothing is half written."""

import csv
import hashlib
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.data import prepare as module
from geonb.data import read_records, tokenise
from geonb.data.prepare import Prepared, prepare
from geonb.errors import InputError
from geonb.models import Checkpoint

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
# everything that UTF-8 can write, control characters, quotes, line ends of Unicode and emoji included
TEXTS = st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from('\0\r\n"\x1b\x85\u2028😀,;\t')), max_size=8)


def write_csv(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def write_jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path, **columns):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table(columns), path)
    return path


def kept(texts):
    """The texts that are records, by a computation of their own: not blank, each once, in order."""
    return list(dict.fromkeys(text for text in texts if not (text.isspace() or text == "")))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@given(texts=TEXTS)
def test_any_text_goes_through_unchanged_and_reads_back_with_the_same_count(tmp_path_factory, kind, texts):
    folder = tmp_path_factory.mktemp("p")
    texts = [*texts, "sure"]
    if kind == "csv":
        source = write_csv(folder / "a.csv", ["text"], [[text] for text in texts])
    elif kind == "jsonl":
        source = write_jsonl(folder / "a.jsonl", *({"text": text} for text in texts))
    else:
        source = write_parquet(folder / "a.parquet", text=texts)
    found = prepare(source, folder / "out.jsonl")
    assert [record.text for record in read_records(found.output)] == kept(texts)
    assert found.n_kept == len(kept(texts)) and found.n_read == len(texts)
    assert found.n_removed == found.n_read - found.n_kept == sum(found.removed.values())
    assert Prepared.from_json(found.to_json()) == found


@given(pairs=st.lists(st.tuples(*[st.text(st.characters(codec="utf-8"))] * 2), max_size=8))
def test_any_pair_goes_through_csv_as_a_conversation(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("p")
    pairs = [*pairs, ("sure", "yes")]
    found = prepare(write_csv(folder / "a.csv", ["question", "answer"], pairs), folder / "out.jsonl")
    expected = list(dict.fromkeys((q, a) for q, a in pairs if q.strip() and a.strip()))
    records = read_records(found.output)
    assert [tuple(message["content"] for message in record.messages) for record in records] == expected
    assert all([message["role"] for message in record.messages] == ["user", "assistant"] for record in records)


def test_every_removed_record_is_counted_by_reason_and_listed_on_request(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"text": "one"}).encode(),
        b'{"text": "bad \xff byte"}',
        json.dumps({"text": "one"}).encode(),
        json.dumps({"text": " "}).encode(),
        json.dumps({"text": 5}).encode(),
        b"{broken \x1b[2J",
        json.dumps({"messages": TALK[:1]}).encode(),
        json.dumps({"messages": TALK}).encode(),
        b'{"text": "lone \\ud800"}',
        b"3",
    ]
    path.write_bytes(b"\n".join(lines))
    found = prepare(path, show_dropped=True)
    reasons = {
        2: "undecodable bytes",
        3: "duplicate",
        4: "empty",
        5: "not a string",
        6: "not JSON",
        7: "no assistant turn",
        9: "not valid Unicode",
        10: "neither an object nor a string",
    }
    assert {one.line: one.reason for one in found.dropped} == reasons
    assert found.removed == {reason: 1 for reason in reasons.values()}
    assert (found.n_read, found.n_kept, found.n_removed) == (10, 2, 8)
    assert found.kinds == {"messages": 1, "text": 1}
    assert found.dropped[1].excerpt == "one" and found.dropped[4].excerpt == "{broken \x1b[2J"
    assert "\x1b" not in found.to_text() and "line 6: not JSON: '{broken \\x1b[2J'" in found.to_text()
    assert "\x1b" not in found.to_html()
    assert prepare(path, overwrite=True).dropped == ()


def test_the_list_of_removed_records_ends_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LISTED", 2)
    found = prepare(write_jsonl(tmp_path / "a.jsonl", *[{"text": "x"}] * 6), show_dropped=True)
    assert len(found.dropped) == 2 and found.removed == {"duplicate": 5}
    assert "and 3 more that are not listed" in found.to_text()


def test_lengths_are_those_of_the_kept_records(tmp_path):
    texts = ["x" * n for n in (1, 2, 3, 4, 100)]
    found = prepare(write_jsonl(tmp_path / "a.jsonl", *({"text": text} for text in texts), {"text": ""}))
    lengths = found.characters
    assert (lengths.minimum, lengths.mean, lengths.median, lengths.maximum, lengths.total) == (1, 22.0, 3.0, 100, 110)
    assert lengths.p95 == pytest.approx(4 + 0.8 * 96)  # position 0.95 (n - 1) = 3.8 between 4 and 100
    assert found.tokens is None and found.n_beyond_context is None


def test_tokens_are_those_that_training_counts(tmp_path):
    checkpoint = Checkpoint.open("embedded")
    tokenizer = checkpoint.load_tokenizer()
    rows = [{"text": "In the beginning"}, {"messages": TALK}, {"text": "word " * 40}]
    found = prepare(
        write_jsonl(tmp_path / "a.jsonl", *rows), tokenizer=tokenizer, context_length=20, model="some model"
    )
    examples = tokenise(read_records(found.output), tokenizer, context_length=None).examples
    counts = np.array([len(example.input_ids) for example in examples])
    assert found.tokens is not None
    assert (found.tokens.minimum, found.tokens.total, found.tokens.maximum) == (
        counts.min(),
        counts.sum(),
        counts.max(),
    )
    assert found.n_beyond_context == (counts > 20).sum() == 1
    assert "1 records are longer than the model's context of 20 tokens; training cuts them" in found.notes
    assert found.next_command.startswith("geonb plan -m 'some model' -d ")


def test_a_template_that_refuses_a_record_is_a_note(tmp_path):
    tokenizer = Checkpoint.open("embedded").load_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}"
    found = prepare(write_jsonl(tmp_path / "a.jsonl", {"messages": TALK}, {"text": "x y"}), tokenizer=tokenizer)
    assert found.tokens is not None and found.n_kept == 2
    assert any(note.startswith("1 records cannot be tokenised; the first: ") for note in found.notes)


def test_a_folder_of_several_kinds_says_how_each_was_read(tmp_path):
    (tmp_path / "in").mkdir()
    write_csv(tmp_path / "in/a.csv", ["id", "prompt", "answer"], [["1", "p", "a"]])
    (tmp_path / "in/b.json").write_text(json.dumps([{"conversations": [{"from": "human", "value": "q"}]}]))
    (tmp_path / "in/c.json").write_text(
        json.dumps({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]})
    )
    write_parquet(tmp_path / "in/d.parquet", text=["t", "u"], n=[1, 2])
    found = prepare(tmp_path / "in")
    assert found.output == str(tmp_path / "in.prepared.jsonl")
    assert found.files == ("a.csv", "b.json", "c.json", "d.parquet")
    used = {(one.choice.kind, one.choice.columns): one.n for one in found.columns}
    assert used == {("pair", ("prompt", "answer")): 1, ("conversation", ("conversations",)): 1, ("text", ("text",)): 2}
    assert found.roles == {"gpt -> assistant": 1, "human -> user": 1}, "only of records that were kept"
    assert found.removed == {"no assistant turn": 1}


def test_forms_that_appear_below_the_sample_are_read_too(tmp_path):
    rows = [{"text": f"t{i}"} for i in range(300)]
    found = prepare(write_jsonl(tmp_path / "a.jsonl", *rows, {"messages": TALK}))
    assert found.kinds == {"messages": 1, "text": 300} and found.n_removed == 0


def test_the_group_of_a_record_is_kept(tmp_path):
    found = prepare(write_jsonl(tmp_path / "a.jsonl", {"text": "x", "group": "g"}, {"text": "y", "group": 3}))
    assert [record.group for record in read_records(found.output)] == ["g", None]


def test_the_digest_is_that_of_the_output_and_the_same_every_time(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", {"text": "x\u2028y"}, {"text": "ü"})
    first = prepare(source, tmp_path / "b.jsonl")
    content = (tmp_path / "b.jsonl").read_bytes()
    assert first.digest == hashlib.sha256(content).hexdigest() == prepare(source, tmp_path / "c.jsonl").digest
    assert content.decode().splitlines() == ['{"text": "x\\u2028y"}', '{"text": "ü"}']


@pytest.mark.parametrize("name", ["embedded:kjv", "embedded:chat"])
def test_geonbs_own_data_goes_through_but_for_what_it_says_twice(tmp_path, name):
    from geonb.assets import resolve_data

    found = prepare(name, tmp_path / "out.jsonl")
    first, second = read_records(resolve_data(name)), read_records(found.output)
    once = list(dict.fromkeys(record.digest for record in first))
    assert once == [record.digest for record in second]
    assert found.removed == ({"duplicate": len(first) - len(once)} if len(first) > len(once) else {})


def test_memory_does_not_grow_with_the_source(tmp_path):
    """300 bytes for each kept record are allowed, where the records themselves have 2,000."""
    peaks = []
    for count in (1000, 5000):
        with (tmp_path / f"{count}.jsonl").open("w") as stream:
            stream.writelines(json.dumps({"text": f"{i} " + "x" * 2000}) + "\n" for i in range(count))
        tracemalloc.start()
        prepare(tmp_path / f"{count}.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 4000 * 300, peaks


def test_nothing_is_written_where_nothing_is_left(tmp_path):
    with pytest.raises(InputError, match=r"leaves no record of 2 \(2 empty\): name its columns"):
        prepare(write_csv(tmp_path / "a.csv", ["id", "text"], [["1", ""], ["2", " "]]), text_column="text")
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(InputError, match=r"leaves no record of 0 \(it is empty\)"):
        prepare(tmp_path / "b.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.jsonl"]


def test_an_output_is_replaced_only_on_request_and_never_by_half(tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "a.jsonl", {"text": "x"}, {"text": "y"})
    output = tmp_path / "out.jsonl"
    output.write_text("mine")
    with pytest.raises(InputError, match="exists: give another -o, or --overwrite to replace it"):
        prepare(source, output)
    monkeypatch.setattr(module._Preparation, "columns", lambda self: 1 / 0)
    monkeypatch.setattr(module, "_json_line", lambda record: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(source, output, overwrite=True)
    assert output.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.jsonl"]


def test_an_output_that_appears_meanwhile_is_not_replaced(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", *({"text": f"t{i}"} for i in range(600)))
    output = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match="was written by another process meanwhile"):
        prepare(source, output, progress=lambda line: output.write_text("theirs"))
    assert output.read_text() == "theirs"


def test_outputs_that_cannot_be_are_refused_before_reading(tmp_path):
    (tmp_path / "in").mkdir()
    source = write_jsonl(tmp_path / "in/a.jsonl", {"text": "x"})
    with pytest.raises(InputError, match="is the source itself"):
        prepare(source, source, overwrite=True)
    with pytest.raises(InputError, match="lies in a folder that does not exist"):
        prepare(source, tmp_path / "absent/out.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        prepare(source, tmp_path)
    with pytest.raises(InputError, match="lies in the source's own folder"):
        prepare(tmp_path / "in", tmp_path / "in/out.jsonl")
    with pytest.raises(InputError, match="--prompt-column and --answer-column together"):
        prepare(tmp_path / "absent", prompt_column="p")


def test_few_records_are_noted(tmp_path):
    found = prepare(write_jsonl(tmp_path / "a.jsonl", *({"text": f"t{i}"} for i in range(159))))
    assert any("fewer than 160 records leave none to evaluate on" in note for note in found.notes)
    found = prepare(write_jsonl(tmp_path / "b.jsonl", *({"text": f"t{i}"} for i in range(160))))
    assert found.notes == ()


_FRAGMENTS = st.sampled_from(
    [b'{"text": "a"}', b'{"messages": [', b"[", b"]", b"{", b"}", b'"', b"\n", b",", b"PAR1", b"\0", b"\xff", b"text"]
)


@pytest.mark.parametrize("ending", ["", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"])
@given(content=st.binary(max_size=60) | st.lists(_FRAGMENTS, max_size=12).map(b"".join))
def test_any_bytes_become_records_that_read_back_or_one_sentence(tmp_path_factory, ending, content):
    source = tmp_path_factory.mktemp("p") / f"a{ending}"
    source.write_bytes(content)
    try:
        found = prepare(source, source.parent / "out.jsonl", show_dropped=True)
    except InputError as error:
        assert not (source.parent / "out.jsonl").exists()
        assert "\n" not in str(error).replace(repr(content), "")
        return
    assert len(read_records(found.output)) == found.n_kept == found.n_read - found.n_removed > 0
    assert len(found.dropped) == found.n_removed
    assert Prepared.from_json(found.to_json()) == found
    assert all(character.isprintable() or character == "\n" for character in found.to_text())


@pytest.mark.parametrize("header", [b"\x80", b"text,\xff\xfe", b"a\x00b"])
def test_a_header_that_is_no_text_names_no_columns(tmp_path, header):
    source = tmp_path / "rows.csv"
    source.write_bytes(header + b"\nsome words,more\n")
    with pytest.raises(InputError, match="its first line is no text in UTF-8"):
        prepare(source, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()

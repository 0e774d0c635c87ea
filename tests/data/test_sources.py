"""A source as rows: what each kind gives, line by line, and how each kind is refused."""

import codecs
import csv
import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonb.data import sources
from geonb.data.sources import FIELDS, NOT_A_RECORD, NOT_JSON, QUOTES, TOO_LARGE, UNDECODABLE, open_source
from geonb.errors import InputError


def rows(path, **options):
    """(line, value or problem) of every row."""
    return [
        (row.line, row.value if row.value is not None else row.problem)
        for file in open_source(path, **options).files
        for row in file.rows()
    ]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_json_lines_are_told_by_number_and_bad_ones_by_their_reason(tmp_path):
    content = b'{"text": "a"}\n\n  \nnonsense\n{"text": "\xff"}\n"b"\n7\n[{"role": "user", "content": "c"}]\n'
    deep, digits = b"[" * 100_000, b'{"n": ' + b"1" * 5000 + b"}"
    assert rows(put(tmp_path / "a.jsonl", content + deep + b"\n" + digits)) == [
        (1, {"text": "a"}),
        (4, NOT_JSON),
        (5, UNDECODABLE),
        (6, {"text": "b"}),
        (7, NOT_A_RECORD),
        (8, {"messages": [{"role": "user", "content": "c"}]}),
        (9, NOT_JSON),
        (10, NOT_JSON),
    ]


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_text(tmp_path):
    for name, content in {"a.jsonl": '{"text": "x"}', "a.csv": "text\nx\n", "a.txt": "x", "a.json": '["x"]'}.items():
        assert rows(put(tmp_path / name, codecs.BOM_UTF8 + content.encode())) == [
            (2 if name == "a.csv" else 1, {"text": "x"})
        ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a"])
def test_utf_16_and_its_like_are_named(tmp_path, encoding, name):
    path = put(tmp_path / name, 'text\n{"text": "a line"}\n'.encode(encoding))
    with pytest.raises(InputError, match="is UTF-16 or UTF-32 text; allowed is UTF-8"):
        rows(path)


def test_a_line_beyond_the_limit_is_left_out_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_RECORD", 100)
    long = json.dumps({"text": "y" * 1000})
    assert rows(put(tmp_path / "a.jsonl", f'{long}\n{{"text": "x"}}\n{long}')) == [
        (1, TOO_LARGE),
        (2, {"text": "x"}),
        (3, TOO_LARGE),
    ]
    paragraphs = "a\nb\n\n" + "c" * 60 + "\n" + "d" * 60 + "\n\ne"
    assert rows(put(tmp_path / "a.txt", paragraphs)) == [(1, {"text": "a\nb"}), (4, TOO_LARGE), (7, {"text": "e"})]
    with pytest.raises(InputError, match=r"line 2 is not CSV .*larger than field limit"):
        rows(put(tmp_path / "a.csv", "a,b\n" + "c" * 200 + ",d\n"))
    assert csv.field_size_limit() == 131072, "the limit of the process is as it was"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([{"text": "a"}, 3, "b"], [{"text": "a"}, NOT_A_RECORD, {"text": "b"}]),
        ({"version": 1, "data": [{"text": "a"}, {"text": "b"}]}, [{"text": "a"}, {"text": "b"}]),
        ({"text": "only"}, [{"text": "only"}]),
        ([[{"from": "human", "value": "q"}]], [{"messages": [{"from": "human", "value": "q"}]}]),
        (
            {"id": "1", "conversations": [{"from": "human", "value": "q"}]},
            [{"id": "1", "conversations": [{"from": "human", "value": "q"}]}],
        ),
    ],
)
def test_a_json_document_is_an_array_or_holds_one_or_is_a_record(tmp_path, document, expected):
    found = rows(put(tmp_path / "a.json", json.dumps(document, indent=1)))
    assert [value for _, value in found] == expected


def test_json_lines_under_the_name_json_are_read_as_lines(tmp_path):
    path = put(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\nbroken\n')
    assert open_source(path).kind == "jsonl"
    assert rows(path)[-1] == (3, NOT_JSON)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON in UTF-8 that can be read"),
        ("[" * 100_000, "is not JSON in UTF-8 that can be read"),
        (b"[\xff]", "is not JSON in UTF-8 that can be read"),
        ('{"text": {"0": "a"}, "label": {"0": 1}}', "is neither an array of objects"),
        ("7", "is neither an array of objects"),
    ],
)
def test_json_that_is_no_data_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        rows(put(tmp_path / "a.json", content))


def test_a_json_document_beyond_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_JSON", 10)
    with pytest.raises(
        InputError, match=r"is one JSON document of 14 bytes; allowed are 256 MiB: save it as JSON lines"
    ):
        rows(put(tmp_path / "a.json", '["aaaaaaaaaa"]'))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter):
    lines = [delimiter.join(["id", "text"]), delimiter.join(["1", '"a, b; c | d\te"']), delimiter.join(["2", "f"])]
    found = rows(put(tmp_path / "a.csv", "\n".join(lines)))
    assert found == [(2, {"id": "1", "text": "a, b; c | d\te"}), (3, {"id": "2", "text": "f"})]


def test_csv_rows_that_do_not_fit_are_told_and_the_next_is_read(tmp_path):
    content = b'a,b\n1,"two\nlines"\n3\n\n4,5,6\n"x"y,7\n8,\xff\n9,"never closed\n10,11\n'
    assert rows(put(tmp_path / "a.csv", content)) == [
        (2, {"a": "1", "b": "two\nlines"}),
        (4, FIELDS),
        (6, FIELDS),
        (7, QUOTES),
        (8, UNDECODABLE),
        (9, QUOTES),
    ]


def test_tab_separated_text_with_stray_quotes_is_read_without_quoting(tmp_path):
    found = rows(put(tmp_path / "a.tsv", 'id\ttext\n1\t"Hello" he said\n2\tplain\n'))
    assert found == [(2, {"id": "1", "text": '"Hello" he said'}), (3, {"id": "2", "text": "plain"})]


def test_a_header_must_name_each_column_once(tmp_path):
    with pytest.raises(InputError, match="names the column 'a' twice"):
        rows(put(tmp_path / "a.csv", "a,a\n1,2\n"))
    with pytest.raises(InputError, match="has an empty first line"):
        rows(put(tmp_path / "b.csv", "\n1,2\n"))
    assert rows(put(tmp_path / "c.csv", "a,,\n1,2,3\n")) == [(2, {"a": "1", "column 2": "2", "column 3": "3"})]


def test_parquet_gives_its_rows_and_only_the_columns_asked_for(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": [f"t{i}" for i in range(600)], "n": range(600)}), path)
    (file,) = open_source(path).files
    assert [row.value for row in file.rows()] == [{"text": f"t{i}", "n": i} for i in range(600)]
    assert next(file.rows(["text", "absent"])).value == {"text": "t0"}


def test_parquet_text_that_is_not_utf_8_costs_its_own_row(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    raw = arrow.array([b"a", b"b\xff", b"c", b"d", b"\xfe"], arrow.binary())
    bad = arrow.Array.from_buffers(arrow.string(), len(raw), raw.buffers())
    parquet.write_table(arrow.table({"text": bad}), tmp_path / "a.parquet")
    assert [value for _, value in rows(tmp_path / "a.parquet")] == [
        {"text": "a"},
        UNDECODABLE,
        {"text": "c"},
        {"text": "d"},
        UNDECODABLE,
    ]


def test_parquet_without_pyarrow_names_the_extra_and_broken_parquet_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path / "a.parquet", b"PAR1 and nothing more")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        rows(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"is Parquet, which needs pyarrow: install geonb\[data\]"):
        rows(path)


def test_plain_text_is_split_on_blank_lines_or_on_every_line(tmp_path):
    path = put(tmp_path / "a.txt", b"one\r\ntwo\r\n\r\n \t\nthree\xff\n\nfour")
    assert rows(path) == [(1, {"text": "one\ntwo"}), (5, UNDECODABLE), (7, {"text": "four"})]
    assert [value for _, value in rows(path, by_line=True)] == [
        {"text": "one"},
        {"text": "two"},
        UNDECODABLE,
        {"text": "four"},
    ]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=12))
def test_by_line_gives_every_line_that_is_not_blank(tmp_path_factory, lines):
    lines = [line.replace("\n", "").replace("\r", "") for line in lines]
    path = put(tmp_path_factory.mktemp("t") / "a.txt", "".join(f"{line}\n" for line in lines))
    expected = [line for line in lines if line.encode().strip()]
    # the mark at the start of a file is no text
    if lines and lines[0].startswith("\ufeff"):
        expected = [line for line in (lines[0][1:], *lines[1:]) if line.encode().strip()]
    assert [value["text"] for _, value in rows(path, by_line=True)] == expected


def test_a_file_without_an_ending_is_known_by_its_first_bytes(tmp_path):
    assert open_source(put(tmp_path / "a", '{"text": "a"}\n{"text": "b"}\n')).kind == "jsonl"
    assert open_source(put(tmp_path / "b", '[{"text": "a"}]')).kind == "json"
    assert open_source(put(tmp_path / "c", "words\n")).kind == "text"
    with pytest.raises(InputError, match="is neither text nor Parquet"):
        open_source(put(tmp_path / "d", bytes(range(256)) * 4))
    with pytest.raises(InputError, match="is a gzip file"):
        open_source(put(tmp_path / "e.jsonl", b"\x1f\x8b" + zlib.compress(b"x")))


def test_a_folder_gives_the_files_of_the_split_in_order(tmp_path):
    for name in ("data/train-00001-of-00002.csv", "data/train-00000-of-00002.csv", "data/test-00000-of-00001.csv"):
        put(tmp_path / name, f"text\n{name}\n")
    put(tmp_path / "README.md", "about the data")
    put(tmp_path / ".cache/train.csv", "text\nhidden\n")
    put(tmp_path / "dataset_infos.json", "{}")
    source = open_source(tmp_path)
    assert [file.name for file in source.files] == ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv"]
    assert source.notes == ("files left aside: 3 ('README.md', 'data/test-00000-of-00001.csv', 'dataset_infos.json')",)
    assert [file.name for file in open_source(tmp_path, split="test").files] == ["data/test-00000-of-00001.csv"]
    with pytest.raises(InputError, match="has no file of the split 'validation'; give one of train, test"):
        open_source(tmp_path, split="validation")


def test_a_folder_of_unnamed_files_is_all_training_data(tmp_path):
    put(tmp_path / "b.txt", "b")
    put(tmp_path / "a.txt", "a")
    assert [value for _, value in rows(tmp_path)] == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(InputError, match="give one of none"):
        open_source(tmp_path, split="test")


def test_a_link_does_not_lead_out_of_the_folder(tmp_path):
    outside = put(tmp_path / "outside/secret.jsonl", '{"text": "secret"}')
    put(tmp_path / "in/a.jsonl", '{"text": "a"}')
    (tmp_path / "in/b.jsonl").symlink_to(outside)
    (tmp_path / "in/more").symlink_to(outside.parent, target_is_directory=True)
    assert [file.name for file in open_source(tmp_path / "in").files] == ["a.jsonl"]


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist; allowed are a file"):
        open_source(tmp_path / "absent.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file of a kind that can be read"):
        open_source(tmp_path / "empty")
    with pytest.raises(InputError, match="--split was given 'test', but the single file"):
        open_source(put(tmp_path / "a.txt", "a"), split="test")


_FILES = {
    "README.md": b"about",
    "data/train-00000-of-00001.jsonl": b'{"text": "fetched"}\n',
    "data/test-00000-of-00001.jsonl": b'{"text": "kept apart"}\n',
    "data/train.csv": b"text\nfetched\n",
}
_SHA = "0" * 39 + "1"


class _Hub(http.server.BaseHTTPRequestHandler):
    """The three answers of a hub that reading a data set needs."""

    asked: list[str] = []  # noqa: RUF012 - shared by the handlers of all requests

    def do_GET(self, body=True):
        self.asked.append(self.path)
        content, status = b"{}", 404
        if self.path.startswith("/api/datasets/owner/name"):
            listed = {"id": "owner/name", "sha": _SHA, "siblings": [{"rfilename": name} for name in _FILES]}
            content, status = json.dumps(listed).encode(), 200
        elif (name := self.path.removeprefix(f"/datasets/owner/name/resolve/{_SHA}/")) in _FILES:
            content, status = _FILES[name], 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{zlib.crc32(content):08x}"')
        self.send_header("X-Repo-Commit", _SHA)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def do_HEAD(self):
        self.do_GET(body=False)

    def log_message(self, *_):
        pass


def in_a_process(tmp_path, **environment):
    """What a process with a hub of its own says of owner/name: the texts, or the sentence."""
    code = """
        from geonb.data.sources import open_source
        from geonb.errors import InputError
        try:
            source = open_source("owner/name")
            print(source.kind, [row.value for file in source.files for row in file.rows()], *source.notes)
        except InputError as error:
            print(error)
    """
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", **environment}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_hub_data_set_gives_the_split_in_one_format_of_one_revision(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = in_a_process(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HUB_OFFLINE="0")
        server.shutdown()
    assert said == f"hub data set [{{'text': 'fetched'}}] 1 jsonl files of revision {_SHA}", said
    fetched = {path.rpartition("/")[2] for path in _Hub.asked if "/resolve/" in path}
    assert fetched == {"train-00000-of-00001.jsonl"}


def test_without_a_network_a_hub_data_set_is_one_sentence(tmp_path):
    said = in_a_process(tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("owner/name is no local path, and the hub did not deliver that data set (")
    assert said.endswith("): check the name and the network.") and "\n" not in said

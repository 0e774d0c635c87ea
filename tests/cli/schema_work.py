"""What the commands of test_schemas.py work on, and how one of them is called."""

import functools
import json

from typer.testing import CliRunner

from geonb.cli.app import app
from tests.coordinates.small import small_coordinate_run
from tests.merge.donors import perturbed
from tests.tiny import tiny_data, tiny_model, tiny_run
from tests.workbench.benchmark.small import write_rows


def call(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


class Work:
    """The inputs that the commands share, each made when it is first asked for."""

    def __init__(self, factory):
        self.factory, self.folder = factory, factory.mktemp("work")
        self.model, self.data = tiny_model(factory), tiny_data(factory)

    run = property(lambda self: tiny_run(self.factory))
    other = property(lambda self: tiny_run(self.factory, 3))

    @functools.cached_property
    def held_out(self):
        path = self.folder / "held.jsonl"
        path.write_text("".join(json.dumps({"text": f"{i} plums and {i % 7} pears."}) + "\n" for i in range(12)))
        return path

    @functools.cached_property
    def prompts(self):
        path = self.folder / "prompts.jsonl"
        path.write_text('{"prompt": "one apple and", "answer": "two"}\n{"prompt": "three"}\n')
        return path

    @functools.cached_property
    def donor(self):
        return perturbed(self.model, self.folder / "donor")

    @functools.cached_property
    def evaluation(self):
        path = self.folder / "evaluation.json"
        if not path.exists():
            call(
                "train",
                "evaluate",
                "-m",
                self.model,
                "-a",
                self.run,
                "-d",
                self.held_out,
                "--device",
                "cpu",
                "-o",
                path,
            )
        return path

    @functools.cached_property
    def problems(self):
        path = self.folder / "problems.jsonl"
        path.write_text(
            "".join(json.dumps({"prompt": f"{i} and {i}", "answer": str(2 * i)}) + "\n" for i in range(120))
        )
        return path

    @functools.cached_property
    def rows(self):
        return write_rows(self.folder / "rows.jsonl")

    @functools.cached_property
    def coordinates(self):
        return small_coordinate_run(self.folder / "coordinates")

    @functools.cached_property
    def style(self):
        call(
            "coordinates",
            "export",
            self.coordinates,
            "-o",
            self.folder / "exported",
            "--style",
            "plain=The baker waits.",
        )
        return self.folder / "exported" / "styles" / "plain"

    @functools.cached_property
    def task(self):
        (self.folder / "rows.json").write_text(
            "".join(json.dumps({"q": f"{i} and", "choices": ["one", "two"], "right": i % 2}) + "\n" for i in range(6))
        )
        path = self.folder / "task.yaml"
        path.write_text(
            "task: tiny\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
            f"    test: {self.folder / 'rows.json'}\n"
            'test_split: test\nnum_fewshot: 0\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_target: right\n'
            'doc_to_choice: "{{choices}}"\nmetric_list:\n  - metric: acc\n'
        )
        return path

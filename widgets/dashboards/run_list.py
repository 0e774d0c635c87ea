"""RunList: the runs of a dashboard with their state, looked at again every second while the page is open."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from geonb.record_tables import table_html
from geonb.train.run_folder import RunFolder
from geonb.widgets.dashboards.library import Library
from geonb.widgets.view import View

_PERIOD = 1.0


class RunList(View):
    """A row a run: what it trains, where it stands, how it ended; ticked rows are compared."""

    name = "run_list"

    def __init__(self, library: Library, *, chosen: list[str]) -> None:
        super().__init__()
        self.library, self.chosen = library, chosen
        self._leave = threading.Event()
        self._rows = self.rows()

    def __repr__(self) -> str:
        return f"RunList({len(self._rows)} runs)"

    def rows(self) -> list[dict[str, Any]]:
        """The runs as they are now."""
        return [_row(name, path) for name, path in self.library.runs().items()]

    def state(self) -> dict[str, Any]:
        return {"rows": self._rows, "chosen": self.chosen}

    def static(self) -> str:
        rows = [
            [row["name"], row["state"], f"{row['step']} of {row['horizon']}", row["what"], row["message"]]
            for row in self._rows
        ]
        return table_html(("run", "state", "step", "what", ""), rows, caption="Runs")

    def figure(self) -> Any:
        """How far each run has come, as bars."""
        from geonb.widgets.figures import runs_figure

        return runs_figure(self._rows)

    def begin(self) -> None:
        self._leave = threading.Event()
        threading.Thread(target=self._watch, args=(self._leave,), name="geonb-runs", daemon=True).start()

    def rest(self) -> None:
        self._leave.set()

    def _watch(self, leave: threading.Event) -> None:
        while not leave.wait(_PERIOD):
            rows = self.rows()
            if rows != self._rows:
                self._rows = rows
                self.push()


def _row(name: str, path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "state": "unreadable", "step": 0, "horizon": 0, "what": "", "message": ""}
    run = RunFolder(path)
    try:
        plan = run.plan()
        status = run.status()
        row |= {"what": f"{plan.model['name']} on {plan.data['path']}", "horizon": int(plan.horizon["steps"])}
        if status is None:
            row["state"] = "planned"
        else:
            alive = status.state not in {"training", "verifying"} or run.is_alive()
            row |= {"state": status.state if alive else "dead", "step": status.step, "message": status.message}
    except Exception:
        # whatever a damaged folder raises, it takes its own row and never the list away
        row["message"] = "half-written, or on its way out"
    return row

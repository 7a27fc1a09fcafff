"""What the local page shows: the list of jobs, and one job with the same sections as its report."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

from mcp_server.jobs import index, store
from mcp_server.jobs.service import JobView
from mcp_server.reports.chart import sparkline
from mcp_server.reports.facts import collect
from mcp_server.reports.markup import Html, element, escape, join
from mcp_server.reports.page import document, job
from mcp_server.reports.words import badge, clock
from mcp_server.training.history import LIVE_BYTES, Points, read_history, thin
from mcp_server.training.log import duration

_SHOWN_JOBS = 50
# Asks for the same page again and puts its content in place. What the reader has opened stays open.
SCRIPT = """
const box = document.querySelector("main"), note = document.querySelector("#lost");
async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.pathname + "?part=1", {cache: "no-store"});
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const opened = [...box.querySelectorAll("details[open]")].map(one => one.id);
      for (const id of opened) page.getElementById(id)?.setAttribute("open", "");
      box.replaceChildren(...page.body.childNodes);
      note.hidden = true;
    } catch { note.hidden = false; }
  }
  setTimeout(look, box.querySelector(".working, .queued") ? 2000 : 10000);
}
setTimeout(look, 2000);
"""


def page(title: str, content: Html) -> str:
    """A page that keeps itself up to date."""
    lost = element(
        "p", "No answer from mlx-training ui: what you see is no longer live.", style="error", id="lost", hidden=""
    )
    return document(
        title, join([lost, element("main", content)]), policy=None, script=Html(f"<script>{SCRIPT}</script>")
    )


class Jobs:
    """The list. Curves of jobs that have ended are kept, since they change no more."""

    def __init__(self) -> None:
        self._ended: dict[str, tuple[float | None, Points]] = {}

    def content(self) -> Html:
        """The newest jobs, newest first."""
        found = index.newest(_SHOWN_JOBS)
        title = element("h1", "mlx-training")
        if not found.jobs:
            start = ("No jobs yet. Start one from Claude Code or with ", element("code", "mlx-training train"), ".")
            return join([title, element("p", *start)])
        rows = (element("li", *(element("div", cell) for cell in self._row(view))) for view in found.jobs)
        showing = element("p", found.showing, ", newest first", style="muted small")
        return join([title, showing, element("ul", *rows, style="jobs")])

    def _row(self, view: JobView) -> list[Html | str]:
        losses = self._losses(view)
        name = Path(view.adapter_path).name if view.adapter_path else view.kind
        link = element("a", name, href=f"jobs/{quote(view.job_id)}")
        return [
            join([link, element("div", view.job_id, style="muted small")]),
            badge(view.status),
            _step(view),
            element("span", f"{losses[-1][1]:.4g}" if losses else "", title="training loss"),
            sparkline(losses),
            _time(view),
        ]

    def _losses(self, view: JobView) -> Points:
        if view.kind != "train":
            return []
        known = self._ended.get(view.job_id)
        if known is not None and known[0] == view.ended:
            return known[1]
        points = thin(read_history(store.JobFolder(store.jobs_folder() / view.job_id).metrics, LIVE_BYTES).train, 60)
        if view.status in store.TERMINAL:
            self._ended[view.job_id] = view.ended, points
        return points


def _step(view: JobView) -> Html:
    if view.step is None or not view.total:
        return Html("")
    text = f"{view.step:,} / {view.total:,}"
    if view.status != "working":
        return escape(text)
    return join([text, element("progress", value=view.step, max=view.total)])


def _time(view: JobView) -> Html:
    if view.seconds_left is not None:
        return join([element("b", duration(view.seconds_left)), " left"])
    since = view.started or view.created
    took = f", {duration((view.ended or time.time()) - since)}" if view.started else ""
    return element("span", clock(since) + took, style="muted small")


def job_content(job_id: str) -> Html:
    """One job. Raises JobError when there is none."""
    links = [element("a", "All jobs", href="../")]
    links.append(element("a", "Report", href=f"{quote(job_id)}/report"))
    facts = collect(store.get(job_id), limit=LIVE_BYTES)
    return join([element("p", join(links, " · "), style="small"), job(facts)])

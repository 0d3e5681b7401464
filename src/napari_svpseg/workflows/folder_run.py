"""Segment many files: on this machine, or on the workers of a Dask cluster.

Several images are segmented at once, each on its share of the processor's cores, so
that reading and writing one overlaps with computing another. Finished images are in
``summary.csv`` at once, so that a run that was stopped or killed can be resumed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import DEBUG, one_line, printable
from ..core.image import ImageError
from ..core.jobs.folder_job import FORMAT_TITLES, BatchJob, FileOutcome
from ..core.progress import Cancelled, Progress, ignore_progress
from ..core.prompt import PromptSet, prompt_hash
from ..core.result import versions
from ..core.settings import split_settings
from ..io.atomic import remove_leftovers
from ..io.folder_records import (
    CUT_PROMPTS,
    LOG,
    RUN,
    SUMMARY,
    append_log,
    check_collisions,
    find_images,
    outcome_from_labels,
    read_run,
    read_summary,
    real_path,
    write_run,
    write_summary,
)
from ..io.images import check_readable
from ..io.ome_zarr import is_zarr, open_image
from .segment_file import segment_file

logger = logging.getLogger(__name__)

MAX_AT_ONCE = 8
"""Images that are segmented at once on this machine."""

LARGE = 100_000_000
"""Pixels from which a Zarr image of a folder is segmented from file to file."""

MAX_SUBMITTED = 64
"""Images that wait on a cluster at once."""

SAVE_EVERY_S = 1.0
"""How often the summary is written while a run goes on."""

OTHER = "made with other prompts, another model or other settings"

TOO_LARGE = (
    f"{{path}}: is too large for {{what}}: choose {FORMAT_TITLES['ome-zarr']} only"
)

CHECK_EVERY_S = 0.1
"""How often a run checks whether it is cancelled."""


def run_batch(
    job: BatchJob,
    prompts: PromptSet | None = None,
    *,
    runner: Any = None,
    on_progress: Progress = ignore_progress,
    on_partial: Callable[[list[FileOutcome]], None] | None = None,
) -> list[FileOutcome]:
    """Segment all images of a job; a file that cannot be read stops no other.

    Parameters
    ----------
    job : BatchJob
    prompts : PromptSet, optional
        By default those of the job's prompt file.
    runner : Runner, optional
        Where images are segmented (see `engine.jobs.job`); by default threads of this
        process.
    on_progress : callable
        ``(done, total, message)``, called again and again; may raise `Cancelled`.
    on_partial : callable, optional
        Called with new outcomes, also of status ``running``.

    Returns
    -------
    list of FileOutcome
        One for each image, in their order.

    Raises
    ------
    ValueError
        If there are no images, or results would overwrite images or each other.
    Cancelled
        Raised by ``on_progress``; finished images are kept.
    """
    files = find_images(job.inputs, job.include, job)
    check_collisions(job, files)
    if prompts is None and job.prompts:
        from ..io.prompt_files import load_prompts

        prompts = load_prompts(job.prompts)
    if prompts is not None:  # else the model brings its own
        prompts = prompts.usable()
    outcomes = _Outcomes(job, files, prompts, on_partial or (lambda outcomes: None))
    work = _here if runner is None else _on(runner)

    def check_cancelled() -> None:
        on_progress(outcomes.n_done, len(files), "")

    state = "stopped"
    try:
        check_cancelled()
        unreadable, todo = _without_unreadable(outcomes.skip_done())
        for outcome in chain(
            map(outcomes.note, unreadable),
            work(job, todo, prompts, check_cancelled, outcomes),
        ):
            outcomes.report(outcome)
            check_cancelled()
        state = "done"
    finally:
        outcomes.close(state)
    return outcomes.in_order()


def _without_unreadable(files: list[Path]) -> tuple[list[FileOutcome], list[Path]]:
    """Return the outcomes of files that cannot be read, and the other files.

    They are reported before torch is loaded.
    """
    unreadable, todo = [], []
    for path in files:
        try:
            if not is_zarr(path):
                check_readable(path)
        except ImageError as error:
            outcome = FileOutcome(str(path), status="failed", error=one_line(error))
            unreadable.append(outcome)
        else:
            todo.append(path)
    return unreadable, todo


class _Outcomes:
    """Outcomes of the files of a run; keeps the run's own files up to date."""

    def __init__(
        self,
        job: BatchJob,
        files: list[Path],
        prompts: PromptSet | None,
        tell: Callable[[list[FileOutcome]], None],
    ) -> None:
        self.job, self.files, self._tell = job, files, tell
        self.folder = Path(job.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        self._found: dict[str, FileOutcome] = {}
        self._saved_at = time.monotonic()
        self._record = run_record(job, prompts) | {
            "files": len(files),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        self._before = read_summary(self.folder / SUMMARY) if job.skip_done else {}
        self._kept_note = self._note_on_kept()
        write_run(self.folder / RUN, job, self._record | {"state": "running"})
        self.log([f"started: {len(files)} files, model {job.model}"])

    @property
    def n_done(self) -> int:
        """Files that are done, failed or skipped."""
        return len(self._found)

    def skip_done(self) -> list[Path]:
        """Record the files that were done before; return the others."""
        if not self.job.skip_done:
            return self.files
        todo, skipped = [], []
        for path in self.files:
            targets = list(self.job.targets(str(path)).values())
            if not all(map(os.path.exists, targets)):
                todo.append(path)
                continue
            outcome = FileOutcome(str(path), targets[0], status="skipped")
            known = self._before.get(printable(str(path)))
            outcome = (
                replace(known, source=str(path), labels=targets[0])
                if known
                else outcome_from_labels(outcome)
            )
            notes = dict.fromkeys((*outcome.notes, *self._kept_note))
            outcome = replace(outcome, notes=tuple(notes))
            self._found[str(path)] = outcome
            skipped.append(outcome)
        if skipped:
            self._tell(skipped)
            self.log([f"{len(skipped)} files were done before"])
        return todo

    def started(self, path: Path) -> None:
        """Report that a file is being segmented."""
        self._tell([FileOutcome(str(path), status="running")])

    def note(self, outcome: FileOutcome) -> FileOutcome:
        """Record the outcome of a file; called in the thread that worked on it."""
        self._found[outcome.source] = outcome
        return outcome

    def report(self, outcome: FileOutcome) -> None:
        """Report the outcome of a file, and write the summary from time to time."""
        lines = [f"{outcome.source}: {_log_text(outcome)}"]
        self.log(lines + [f"{outcome.source}: {note}" for note in outcome.notes])
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self._save()
        self._tell([outcome])

    def in_order(self) -> list[FileOutcome]:
        """Return the outcomes in the order of the files."""
        return [self._found[str(p)] for p in self.files if str(p) in self._found]

    def close(self, state: str) -> None:
        """Write the summary, and how the run ended."""
        failed = sum(o.status == "failed" for o in self._found.values())
        ended = {
            "state": state,
            "done": len(self._found) - failed,
            "failed": failed,
            "ended": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        try:
            self._save()
        finally:
            write_run(self.folder / RUN, self.job, self._record | ended)
        done = f"{ended['done']} of {len(self.files)} done"
        self.log([f"{state}: {done}, {failed} failed"])

    def log(self, lines: list[str]) -> None:
        """Add lines to the run's log; a log that cannot be written stops nothing."""
        with suppress(OSError):
            append_log(self.folder / LOG, lines)

    def _save(self) -> None:
        write_summary(self.folder / SUMMARY, self.in_order())
        self._saved_at = time.monotonic()

    def _note_on_kept(self) -> tuple[str, ...]:
        """Return a note for results that were made with other settings."""
        if not self.job.skip_done:
            return ()
        try:
            _, record = read_run(self.folder / RUN)
        except (ValueError, OSError):
            return ()
        if record.get("fingerprint") == self._record["fingerprint"]:
            return ()
        logger.warning("%s: what is done there is kept, but was %s", self.folder, OTHER)
        return (f"kept, but {OTHER}",)


def run_record(job: BatchJob, prompts: PromptSet | None) -> dict[str, Any]:
    """Return the fingerprints and settings that decide on the results of a run."""
    from ..io.model_store import find_model

    card = find_model(job.model)
    made_of = {
        "weights_sha256": card.sha256,
        "prompts_sha256": [prompt_hash(prompt) for prompt in prompts or ()],
        "settings": {k: job.settings[k] for k in sorted(job.settings)},
        "axes": job.axes,
        "channels": job.channels and list(job.channels),
    }
    return {"fingerprint": made_of, "versions": versions()}


def _log_text(outcome: FileOutcome) -> str:
    if outcome.status == "failed":
        return f"failed: {outcome.error}"
    return f"{outcome.objects} objects, trust {outcome.trust:.2f}"


def segment_item(
    path: str | Path,
    prompts: PromptSet | None,
    job: BatchJob,
    targets: dict[str, str],
    *,
    on_progress: Progress = ignore_progress,
) -> FileOutcome:
    """Segment one image of a folder run; a large Zarr from file to file.

    Parameters
    ----------
    path : path
    prompts : PromptSet or None
    job : BatchJob
        How; its inputs do not count here.
    targets : dict of str to str
        Path of the file to write for each format.
    on_progress : callable
        ``(done, total, message)``; may raise `Cancelled`.

    Raises
    ------
    ValueError
        If the image is too large for a format that was asked for.
    """
    path = Path(path)
    run, post = split_settings(job.settings)
    if not is_zarr(path) or open_image(path, 0, job.axes).n_pixels < LARGE:
        return segment_file(
            path,
            prompts,
            job.output,
            model=job.model,
            axes=job.axes,
            channels=job.channels,
            settings=run,
            postprocess=post,
            targets=targets,
            prompts_file=job.prompts,
            on_progress=on_progress,
        )
    others = [FORMAT_TITLES[kind] for kind in targets if kind != "ome-zarr"]
    if others or prompts is None:
        what = " and ".join(others) or "a model without prompts"
        raise ValueError(TOO_LARGE.format(path=path, what=what))
    from .segment_large import segment_zarr

    outcome = segment_zarr(
        path,
        prompts,
        targets["ome-zarr"],
        job.model,
        axes=job.axes,
        channels=job.channels,
        settings=run,
        postprocess=post,
        workers=0,
        on_progress=on_progress,
    )
    return FileOutcome(
        str(path),
        targets["ome-zarr"],
        outcome.objects,
        outcome.seconds,
        notes=outcome.notes,
    )


def _here(
    job: BatchJob,
    files: list[Path],
    prompts: PromptSet | None,
    check_cancelled: Callable[[], None],
    outcomes: _Outcomes,
) -> Iterator[FileOutcome]:
    """Segment files in threads of this process."""
    if not files:
        return
    from ..engine.inference.device import working_threads

    n = min(MAX_AT_ONCE, len(files))
    stop = threading.Event()

    def on_progress(done: int, total: int, message: str = "") -> None:
        if stop.is_set():
            raise Cancelled

    def segment(path: Path) -> FileOutcome:
        targets = job.targets(str(path))
        return outcomes.note(
            outcome_of(
                path,
                lambda: segment_item(
                    path, prompts, job, targets, on_progress=on_progress
                ),
            )
        )

    with working_threads(n, job.settings.get("device", "auto")) as n:
        pool = ThreadPoolExecutor(n, thread_name_prefix="svpseg-batch")
        waiting, running = deque(files), set[Future[FileOutcome]]()
        try:
            while waiting or running:
                while waiting and len(running) < n:
                    path = waiting.popleft()
                    running.add(pool.submit(segment, path))
                    outcomes.started(path)
                ended, running = wait(running, CHECK_EVERY_S, FIRST_COMPLETED)
                check_cancelled()
                for future in ended:
                    yield future.result()
        finally:  # running images end at their next step, or are recorded as done
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _on(runner: Any) -> Any:
    """Return a function that segments files on a cluster, many at once."""

    def work(
        job: BatchJob,
        files: list[Path],
        prompts: PromptSet | None,
        check_cancelled: Callable[[], None],
        outcomes: _Outcomes,
    ) -> Iterator[FileOutcome]:
        there = _for_workers(job)
        waiting, jobs = deque(files), deque[tuple[Path, Any]]()
        while waiting or jobs:
            while waiting and len(jobs) < MAX_SUBMITTED:
                path = waiting.popleft()
                outcomes.started(path)
                targets = {
                    kind: real_path(target)
                    for kind, target in job.targets(str(path)).items()
                }
                submitted = runner.submit(
                    segment_item, real_path(path), prompts, there, targets
                )
                jobs.append((path, submitted))
            path, submitted = jobs.popleft()
            while not submitted.wait(CHECK_EVERY_S):
                check_cancelled()
            yield outcomes.note(outcome_of(path, submitted.result))

    return work


def _for_workers(job: BatchJob) -> BatchJob:
    """Return a job as workers elsewhere need it: with absolute paths.

    The list of inputs, which may be long, does not travel with every image.
    """
    is_folder = Path(job.model).is_dir()
    return replace(
        job,
        inputs=job.inputs[:1],
        output=real_path(job.output),
        model=real_path(job.model) if is_folder else job.model,
    )


def outcome_of(path: Path, result: Callable[[], FileOutcome]) -> FileOutcome:
    """Return the outcome of a file, also of one that failed."""
    try:
        return replace(result(), source=str(path))
    except Cancelled:
        raise
    except Exception as error:  # one bad file must not stop the others
        if os.environ.get(DEBUG):
            raise
        return FileOutcome(str(path), status="failed", error=one_line(error))


def save_cut_prompts(prompts: PromptSet, folder: str | Path) -> Path:
    """Write prompts without a file of their own into a run's folder."""
    from ..io.prompt_files import save_prompts

    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / CUT_PROMPTS
    save_prompts(prompts, path)
    return path

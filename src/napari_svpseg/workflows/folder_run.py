"""Segment many files: on this machine, or on the workers of a Dask cluster.

Several images are segmented at once, each on its share of the processor's cores, so
that reading and writing one overlaps with computing another. Finished images are in
``summary.csv`` at once, so that a run that was stopped or killed can be resumed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..core.errors import DEBUG, one_line
from ..core.escapes import escaped
from ..core.image import ImageError
from ..core.jobs.folder_job import FORMAT_TITLES, BatchJob, FileOutcome
from ..core.progress import Cancelled, Progress, ignore_progress
from ..core.prompt import PromptSet, prompt_hash
from ..core.result import versions
from ..core.settings import split_settings
from ..core.side_by_side import stoppable_pool
from ..io.atomic import remove_leftovers
from ..io.folder_records import (
    CLAIM,
    CUT_PROMPTS,
    LOG,
    RUN,
    SUMMARY,
    WrittenFiles,
    append_log,
    check_collisions,
    find_images,
    outcome_from_labels,
    read_summary,
    real_path,
    write_run,
    write_summary,
)
from ..io.images import TIFF_SUFFIXES, check_readable, split_series
from ..io.locks import RESULTS_LOCK, claimed
from ..io.model_store import find_model
from ..io.ome_zarr import is_zarr, open_image
from ..io.ownership import read_json
from .identity import identity_of_results, image_identity, segment_identity
from .segment_file import segment_file

MAX_AT_ONCE = 8
"""Images that are segmented at once on this machine."""

LARGE = 100_000_000
"""Pixels from which a Zarr image of a folder is segmented from file to file."""

HUGE = 1_000_000_000
"""Pixels from which a TIFF is read in parts whatever is written."""

MAX_SUBMITTED = 64
"""Images that wait on a cluster at once."""

SAVE_EVERY_S = 1.0
"""How often the summary is written while a run goes on."""

AGAIN = (
    "done again: the results there are of another image, other prompts, another model, "
    "other settings or another version, or do not say"
)

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
    overwrite: bool = False,
    on_progress: Progress = ignore_progress,
    on_partial: Callable[[list[FileOutcome]], None] | None = None,
) -> list[FileOutcome]:
    """Segment all images of a job; a file that cannot be read stops no other.

    The folder of the results is locked for this run as long as it goes on.

    Parameters
    ----------
    job : BatchJob
    prompts : PromptSet, optional
        By default those of the job's prompt file. Others are saved in the folder of
        the results.
    runner : Runner, optional
        Where images are segmented (see `engine.jobs.job`); by default threads of this
        process.
    overwrite : bool
        Allow to replace files that no run wrote, and results that were changed since.
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
        If there are no images, or two of them would have one result.
    ReplaceError
        If results would replace what no run of this program wrote.
    InUseError
        If another run writes into the folder now.
    Cancelled
        Raised by ``on_progress``; finished images are kept.
    """
    is_cut = prompts is not None and not job.prompts
    if is_cut:
        job = replace(job, prompts=str(Path(job.output) / CUT_PROMPTS))
    files = find_images(job.inputs, job.include, job)
    check_collisions(job, files)
    with claimed(job.output, RESULTS_LOCK):
        written = WrittenFiles(Path(job.output))
        written.check(job, overwrite)
        written.check_targets(job, files, overwrite)
        if is_cut:
            assert prompts is not None
            save_cut_prompts(prompts, job.output, overwrite=overwrite)
            written.note([CUT_PROMPTS])
        tell = on_partial or (lambda found: None)
        how = _How(runner, overwrite, written, on_progress, tell)
        return _run(job, files, prompts, how)


@dataclass(frozen=True)
class _How:
    """How a run goes: where, what it may replace and has written, whom it tells."""

    runner: Any
    overwrite: bool
    written: WrittenFiles
    on_progress: Progress
    on_partial: Callable[[list[FileOutcome]], None]


def _run(
    job: BatchJob, files: list[Path], prompts: PromptSet | None, how: _How
) -> list[FileOutcome]:
    """Segment the images of a job whose folder is locked."""
    if prompts is None and job.prompts:
        from ..io.prompt_files import load_prompts

        prompts = load_prompts(job.prompts)
    if prompts is not None:  # else the model brings its own
        prompts = prompts.usable()
    outcomes = _Outcomes(job, files, prompts, how)
    work = _here if how.runner is None else _on(how.runner)

    def check_cancelled() -> None:
        how.on_progress(outcomes.n_done, len(files), "")

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
                check_readable(split_series(path)[0])
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
        how: _How,
    ) -> None:
        self.job, self.files, self._tell = job, files, how.on_partial
        self.overwrite = how.overwrite
        self.folder = Path(job.output)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        self._found: dict[str, FileOutcome] = {}
        self._written = how.written
        self._to_claim, self._claimed = deque(files), set[Path]()
        self._saved_at = time.monotonic()
        self._record = run_record(job, prompts) | {
            "files": len(files),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        self._before = read_summary(self.folder / SUMMARY) if job.skip_done else {}
        self._was_killed = read_json(self.folder / RUN).get("state") == "running"
        self._again: set[str] = set()
        self.made_of = identity_of_job(job, prompts)
        self._write_run({"state": "running"})
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
            targets = self.job.targets(str(path))
            if not all(map(os.path.exists, targets.values())):
                todo.append(path)
                continue
            if self._was_killed and escaped(path) not in self._before:
                todo.append(path)  # done in its last second: trust and time are lost
                continue
            outcome = self._done_before(path, targets)
            if outcome is None:
                self._again.add(str(path))
                todo.append(path)
                continue
            self._found[str(path)] = outcome
            skipped.append(outcome)
        if skipped:
            self._tell(skipped)
            self.log([f"{len(skipped)} files were done before"])
        if self._again:
            self.log([f"{len(self._again)} files: {AGAIN}"])
        self._to_claim = deque(todo)
        return todo

    def _done_before(self, path: Path, targets: dict[str, str]) -> FileOutcome | None:
        """Return the outcome of an image that the same run has done before."""
        try:
            wanted = image_identity(self.made_of, path)
        except OSError:
            return None  # reading it will tell why
        first, known = next(iter(targets.values())), self._before.get(escaped(path))
        if known is not None and known.fingerprint == wanted:
            return replace(known, source=str(path), labels=first)
        if identity_of_results(targets) != wanted:
            return None
        return outcome_from_labels(
            FileOutcome(str(path), first, status="skipped", fingerprint=wanted)
        )

    def started(self, path: Path) -> None:
        """Report that a file is being segmented."""
        self._claim(path)
        self._tell([FileOutcome(str(path), status="running")])

    def note(self, outcome: FileOutcome) -> FileOutcome:
        """Record the outcome of a file; called in the thread that worked on it."""
        if outcome.source in self._again and outcome.status == "done":
            outcome = replace(outcome, notes=(AGAIN, *outcome.notes))
        self._found[outcome.source] = outcome
        if outcome.status == "done":
            self._written.note_results(self.job.targets(outcome.source).values())
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
        self._written.release()
        try:
            self._save()
            self._written.note_summary()
        finally:
            self._write_run(ended)
        done = f"{ended['done']} of {len(self.files)} done"
        self.log([f"{state}: {done}, {failed} failed"])

    def log(self, lines: list[str]) -> None:
        """Add lines to the run's log; a log that cannot be written stops nothing."""
        with suppress(OSError):
            append_log(self.folder / LOG, lines)

    def _claim(self, path: Path) -> None:
        """Enter the files of an image, and of the next ones, in ``run.json``.

        So that they are known as ours, although the run may be killed before it
        enters their hashes.
        """
        is_new = False
        while path not in self._claimed:
            n = min(CLAIM, len(self._to_claim))
            chunk = [self._to_claim.popleft() for _ in range(n)]
            self._claimed.update(chunk or [path])
            targets = [t for p in chunk for t in self.job.targets(str(p)).values()]
            is_new |= self._written.claim(targets, self.overwrite)
        if is_new:
            self._write_run({"state": "running"})

    def _write_run(self, values: dict[str, Any]) -> None:
        values = self._record | values | self._written.to_dict()
        write_run(self.folder / RUN, self.job, values, overwrite=True)

    def _save(self) -> None:
        write_summary(self.folder / SUMMARY, self.in_order(), overwrite=True)
        self._saved_at = time.monotonic()


def identity_of_job(job: BatchJob, prompts: PromptSet | None) -> str:
    """Return the fingerprint of all that decides on a job's results but the images."""
    return segment_identity(
        find_model(job.model),
        prompts,
        *split_settings(job.settings),
        axes=job.axes,
        channels=job.channels,
        formats=job.formats,
    )


def run_record(job: BatchJob, prompts: PromptSet | None) -> dict[str, Any]:
    """Return the fingerprints and settings that decide on the results of a run."""
    card = find_model(job.model)
    made_of = {
        "weights_sha256": card.sha256,
        "prompts_sha256": [prompt_hash(prompt) for prompt in prompts or ()],
        "settings": {k: job.settings[k] for k in sorted(job.settings)},
        "axes": job.axes,
        "series": job.series,
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
    made_of: str,
    *,
    overwrite: bool = False,
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
    made_of : str
        From `identity_of_job`.
    overwrite : bool
        As in `run_batch`.
    on_progress : callable
        ``(done, total, message)``; may raise `Cancelled`.

    Raises
    ------
    ValueError
        If the image is too large for a format that was asked for.
    """
    path = Path(path)
    run, post = split_settings(job.settings)
    if not _is_large(path, job.axes, in_parts=set(targets) == {"ome-zarr"}):
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
            made_of=made_of,
            overwrite=overwrite,
            on_progress=on_progress,
        )
    others = [FORMAT_TITLES[kind] for kind in targets if kind != "ome-zarr"]
    if others or prompts is None:
        what = " and ".join(others) or "a model without prompts"
        raise ValueError(TOO_LARGE.format(path=path, what=what))
    from .segment_large import segment_zarr

    fingerprint = image_identity(made_of, path)
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
        overwrite=overwrite,
        on_progress=on_progress,
    )
    return FileOutcome(
        str(path),
        targets["ome-zarr"],
        outcome.objects,
        outcome.seconds,
        notes=outcome.notes,
        fingerprint=fingerprint,
    )


def _is_large(path: Path, axes: str | None, *, in_parts: bool) -> bool:
    """Return whether an image is so large that it is read in parts.

    Those are Zarr images and TIFF files of one plane, such as slides.

    Parameters
    ----------
    path : Path
    axes : str, optional
    in_parts : bool
        Only formats are written that take labels in parts.
    """
    if is_zarr(path):
        return open_image(path, 0, axes).n_pixels >= LARGE
    file, _ = split_series(path)
    if file.suffix.lower() not in TIFF_SUFFIXES or file.stat().st_size < LARGE // 100:
        return False
    try:
        image = open_image(path, 0, axes)
    except ImageError:  # reading it in one piece names the reason, or can do it
        return False
    limit = LARGE if in_parts else HUGE
    return image.n_pixels >= limit and not image.axes.stack


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

    def segment(path: Path, on_progress: Progress) -> FileOutcome:
        targets = job.targets(str(path))
        return outcomes.note(
            outcome_of(
                path,
                lambda: segment_item(
                    path,
                    prompts,
                    job,
                    targets,
                    outcomes.made_of,
                    overwrite=outcomes.overwrite,
                    on_progress=on_progress,
                ),
            )
        )

    # running images end at their next step, or are recorded as done
    with (
        working_threads(n, job.settings.get("device", "auto")) as n,
        stoppable_pool(n, "svpseg-batch") as (pool, on_progress),
    ):
        waiting, running = deque(files), set[Future[FileOutcome]]()
        while waiting or running:
            while waiting and len(running) < n:
                path = waiting.popleft()
                outcomes.started(path)
                running.add(pool.submit(segment, path, on_progress))
            ended, running = wait(running, CHECK_EVERY_S, FIRST_COMPLETED)
            check_cancelled()
            for future in ended:
                yield future.result()


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
                    segment_item,
                    real_path(path),
                    prompts,
                    there,
                    targets,
                    outcomes.made_of,
                    overwrite=outcomes.overwrite,
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


def save_cut_prompts(
    prompts: PromptSet, folder: str | Path, *, overwrite: bool = False
) -> Path:
    """Write prompts without a file of their own into a run's folder."""
    from ..io.prompt_files import save_prompts

    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / CUT_PROMPTS
    return save_prompts(prompts, path, overwrite=overwrite)

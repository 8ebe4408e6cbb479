"""From a bundle to its tuning: what may be picked, proven and timed, and the fastest of it for each objective."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ganexport.golden import Arrays, GoldenSamples
from ganexport.tuning.configurations import Configuration, base_of, configurations_of
from ganexport.tuning.eligibility import LeftOut, judged
from ganexport.tuning.picking import bucket_for, cost, fastest, pick_from
from ganexport.tuning.proof import differing_buckets, first_samples, outputs_per_bucket, problems_against_golden
from ganexport.tuning.turns import Call, Time, times
from ganruntime.buckets import DEFAULT_BUCKETS, checked_buckets
from ganruntime.bundle import Bundle, Pick, Tuning, Variant, Verdict, bundle_changed
from ganruntime.bundle.tuning import OBJECTIVES
from ganruntime.choice import BY_NAME, Choice, backends_of, choose, chosen_device, format_of, opened_session
from ganruntime.errors import BackendError, BundleIntegrityError, GanError, InputError, MissingDependencyError
from ganruntime.machine import this_machine
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sessions.devices import parse_device
from ganruntime.sizes import spec_at
from ganruntime.tuning import versions_here

Say = Callable[[str], None]
LEAST_SECONDS = 0.1
_INPUTS = 4


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    device: `auto`, `cpu`, `cuda` or `cuda:N`. backends, precisions: names; empty for all that there are. A precision
        may be a variant's name.
    floor_psnr_db: below which no variant is picked; None picks nothing below fp32.
    buckets: batch sizes of graphs (engines have their own). seconds: of timing, over all buckets.
    verify: whether variants without a verdict by a backend are verified on the spot.
    """

    device: str = "auto"
    backends: Sequence[str] = ()
    precisions: Sequence[str] = ()
    floor_psnr_db: float | None = None
    buckets: Sequence[int] = DEFAULT_BUCKETS
    seconds: float = 60.0
    verify: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", checked_buckets(tuple(self.buckets)))
        if not LEAST_SECONDS <= self.seconds < float("inf"):
            raise InputError("--seconds is too short", got=self.seconds, expected=f"at least {LEAST_SECONDS:g}")


@dataclass(frozen=True)
class Row:
    """A configuration and its times by bucket."""

    configuration: Configuration
    precision: str
    times: Mapping[int, Time]


@dataclass
class Result:
    """What was found.

    untuned: what a load runs without the record, where it was measured. verdicts: by (variant, backend), those that
    were made on the way.
    """

    device: str
    device_why: str
    rows: list[Row]
    left_out: list[LeftOut]
    untuned: Configuration | None
    tuning: Tuning
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)


def tune_bundle(bundle: Bundle, settings: Settings, say: Say = lambda line: None) -> Result:
    """Measures; writes nothing (`record` does).

    Args:
        say: is told what is being done, a line each.

    Raises:
        InputError: a backend or precision is none.
        BackendError, MissingDependencyError: the device is not there, no backend for it, or nothing may be picked.
        BundleIntegrityError: a file of the bundle is damaged.
    """
    device, why = device_for(bundle, settings.device)
    kind, machine = parse_device(device)[0], this_machine(device)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    left_out: list[LeftOut] = []
    verdicts: dict[tuple[str, str], Verdict] = {}
    candidates: list[Configuration] = []
    for variant, backend in _asked(bundle, settings, kind):
        say(f"judging {variant.name}@{backend}")
        found = judged(bundle, variant, backend, device, settings.floor_psnr_db, golden, verify=settings.verify)
        if found.verdict is not None:
            verdicts[variant.name, backend] = found.verdict
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            candidates += configurations_of(variant, backend, kind, machine.cores)
    untuned = _untuned(bundle, device, candidates)
    candidates.sort(key=lambda c: c != untuned)  # what runs anyway first, then the bundle's order
    with contextlib.ExitStack() as stack:
        sessions = _proven_sessions(bundle, candidates, device, settings.buckets, golden, left_out, stack, say)
        rows = _timed(sessions, golden, settings.seconds, untuned, left_out, say)
    if not rows:
        raise BackendError(
            f"{bundle.path}: nothing may be picked on {device}",
            got="; ".join(f"{item.name}: {item.why}" for item in left_out) or "no variant that was asked for",
            remedy=f"ganexport verify {bundle.path}",
        )
    picks = {objective: _picked(bundle, objective, rows, untuned) for objective in OBJECTIVES}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    tuning = Tuning(machine, versions_here(backends_of(kind)), now, settings.floor_psnr_db, picks)
    return Result(device, why, rows, left_out, untuned, tuning, verdicts)


def device_for(bundle: Bundle, device: str) -> tuple[str, str]:
    """(device, why): the one that was named, or the one that a load takes."""
    return chosen_device(bundle) if device == "auto" else (device, "asked for")


def _asked(bundle: Bundle, settings: Settings, kind: str) -> list[tuple[Variant, str]]:
    """Every variant that gives values, on every backend that runs it, in the bundle's order.

    Raises:
        InputError: a name that was asked for is none of the bundle's.
        BackendError: a backend that was asked for does not run on this kind of device.
        MissingDependencyError: it is not installed, or none is.
    """
    able = backends_of(kind)
    for name in settings.backends:
        if name not in able:
            raise BackendError(f"{name} does not run on {kind}", expected=" or ".join(able))
        if not able[name]:
            raise MissingDependencyError(f"the backend {name} is not installed", expected=name)
    # Of what builds engines for minutes at every load of other buckets, only by name.
    usual = [name for name in able if able[name] and name != BY_NAME]
    names = [name for name in able if name in settings.backends] or usual
    if not names:
        raise MissingDependencyError(f"no backend is installed that runs on {kind}", expected=" or ".join(able))
    # Those that a load takes by itself: it gives pixels only to those who ask (`ganruntime.heads`).
    variants = [v for v in bundle.manifest.variants if v.output == "float"]
    known = {v.name for v in variants} | {v.precision for v in variants}
    for name in settings.precisions:
        if name not in known:
            raise InputError(
                f"{bundle.path} has no variant {name!r} that gives values",
                got=", ".join(v.name for v in variants),
                remedy=f"ganexport inspect {bundle.path}",
            )
    wanted = [v for v in variants if not settings.precisions or {v.name, v.precision} & set(settings.precisions)]
    return [(v, name) for v in wanted for name in names if v.format == format_of(name)]


def _untuned(bundle: Bundle, device: str, candidates: Sequence[Configuration]) -> Configuration | None:
    """Of the candidates the one that a load without a record runs."""
    try:
        choice = choose(bundle, device, "auto", "auto", tuning="off")
    except GanError:
        return None  # nothing is verified yet, or it does not run here: then there is nothing to compare with
    own = (choice.backend, choice.variant.name)
    return next((c for c in candidates if (c.backend, c.variant) == own), None)


def _proven_sessions(
    bundle: Bundle,
    candidates: Sequence[Configuration],
    device: str,
    buckets: Sequence[int],
    golden: GoldenSamples,
    left_out: list[LeftOut],
    stack: contextlib.ExitStack,
    say: Say,
) -> dict[Configuration, Session]:
    """Opens every configuration, and keeps those that draw what they should (`ganexport.tuning.proof`)."""
    few = first_samples(golden)
    proven: dict[Configuration, Session] = {}
    drawn: dict[Configuration, dict[int, Arrays]] = {}
    for candidate in candidates:
        base = base_of(candidates, candidate)
        if candidate != base and base not in proven:
            continue  # its reason stands with the base
        say(f"proving {candidate.name}")
        try:
            session = _opened(bundle, candidate, device, buckets)
            stack.enter_context(session)
            if candidate == base:
                problems = problems_against_golden(session, few, bundle.manifest.golden.reference)
                drawn[base] = outputs_per_bucket(session, golden)
            else:
                differing = differing_buckets(drawn[base], outputs_per_bucket(session, golden))
                problems = [f"other bits than {base.name} in batches of {_listed(differing)}"] if differing else []
        except (BackendError, InputError) as error:
            problems = [f"it does not run: {error.problem}"]
        if problems:
            left_out.append(LeftOut(candidate.name, "; ".join(problems)))
        else:
            proven[candidate] = session
    return proven


def _opened(bundle: Bundle, candidate: Configuration, device: str, buckets: Sequence[int]) -> Session:
    variant = bundle.variant(candidate.variant)
    choice = Choice(
        candidate.backend, device, variant, "given", "given", threads=candidate.threads, streams=candidate.streams
    )
    return opened_session(bundle, choice, buckets=None if variant.format == "tensorrt" else buckets)


def _timed(
    sessions: Mapping[Configuration, Session],
    golden: GoldenSamples,
    seconds: float,
    untuned: Configuration | None,
    left_out: list[LeftOut],
    say: Say,
) -> list[Row]:
    """Every configuration in every bucket; those that failed on the way are left out of all of them."""
    by_name = {c.name: c for c in sessions}
    failures: dict[str, Exception] = {}
    found: dict[str, dict[int, Time]] = {name: {} for name in by_name}
    buckets = sorted({bucket for session in sessions.values() for bucket in session.buckets})
    for bucket in buckets:
        say(f"measuring batches of {bucket}")
        calls = {c.name: _call(s, golden, bucket) for c, s in sessions.items() if bucket in s.buckets}
        calls = {name: call for name, call in calls.items() if name not in failures}
        always = frozenset({untuned.name} if untuned is not None else ())
        for name, time in times(calls, seconds / len(buckets), always=always, failures=failures).items():
            found[name][bucket] = time
    left_out += [LeftOut(name, f"it failed while it was measured: {error}") for name, error in failures.items()]
    return [Row(c, sessions[c].variant.precision, found[name]) for name, c in by_name.items() if name not in failures]


def _call(session: Session, golden: GoldenSamples, bucket: int) -> Call:
    """A function that runs one batch; of its number, other latents each time."""
    pool = [golden.rows(number * bucket, bucket) for number in range(_INPUTS)]
    out = empty_outputs(spec_at(session.spec, golden.size), bucket)

    def call(number: int) -> None:
        session.run(pool[number % _INPUTS], out)

    return call


def _picked(bundle: Bundle, objective: str, rows: Sequence[Row], untuned: Configuration | None) -> Pick:
    buckets = {row.configuration: bucket_for(objective, list(row.times)) for row in rows}
    seconds = {row.configuration: row.times[buckets[row.configuration]].seconds for row in rows}
    costs = {c: cost(objective, buckets[c], seconds[c]) for c in seconds}
    near = [row.configuration for row in rows if row.times[buckets[row.configuration]].counts]
    chosen = fastest(costs, near or list(costs))
    beside = None
    if untuned is not None and untuned in costs:
        # Engines have buckets of their own: for as large a batch as was picked.
        beside = untuned, costs[untuned] * (buckets[chosen] if objective == "throughput" else 1)
    return pick_from(bundle, chosen, buckets[chosen], seconds[chosen], beside, len(rows))


def _listed(buckets: Sequence[int]) -> str:
    return ", ".join(map(str, buckets))


def record(bundle: Bundle, result: Result) -> None:
    """Writes the tuning, and the verdicts that were made on the way, into the bundle.

    Raises:
        BundleIntegrityError: a variant that was measured has another file by now.
        OutputError: the disk is full or may not be written.
    """
    with bundle_changed(bundle.path) as draft:
        names = {row.configuration.variant for row in result.rows} | {variant for variant, _ in result.verdicts}
        for variant in list(draft.variants):
            if variant.name in names and draft.files[variant.file] != bundle.manifest.files.get(variant.file):
                raise BundleIntegrityError(
                    f"{bundle.path}: {variant.file} was changed while it was measured",
                    remedy=f"ganexport tune {bundle.path}",
                )
        for (name, _), verdict in result.verdicts.items():
            draft.variants = [v.with_verdict(verdict) if v.name == name else v for v in draft.variants]
        draft.put_tuning(result.tuning)


def forget(bundle: Bundle, device: str) -> int:
    """Removes the tunings of this machine, whatever the versions; gives how many there were."""
    machine = this_machine(device_for(bundle, device)[0])
    kept = [t for t in bundle.manifest.tunings if t.machine != machine]
    gone = len(bundle.manifest.tunings) - len(kept)
    if gone:
        with bundle_changed(bundle.path) as draft:
            draft.tunings = [t for t in draft.tunings if t.machine != machine]
    return gone

"""The replacement of a bundle by a new export: what goes with its old weights, and which engines can go over.

Lower precisions and engines are made of a graph with its weights, so a new export has none of them. An engine that was
built to be refitted can be given the new weights where the architecture is the same (`ganexport.tensorrt.graph_key`):
it is carried over without a verdict, and does not run until `ganexport to-trt --refit` has refitted and proven it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ganexport.tables import size_text
from ganruntime.bundle import Bundle, BundleDraft, Variant, read_bundle
from ganruntime.bundle.manifest import MANIFEST_NAME
from ganruntime.errors import BundleError, InputError, SpecError

# What an export makes itself: graphs of other precisions are made of these.
_MADE_ANEW = "fp32"


class Replacement:
    """What stands at the path of a new export.

    Attributes:
        old: the bundle there; None where there is none, or none that can be read.
    """

    def __init__(self, path: Path | str, *, keep_engines: bool = False) -> None:
        """Looks at what is there; writes nothing.

        Args:
            keep_engines: whether engines that can be refitted are to be carried over.

        Raises:
            InputError: they are to be, and there are none.
        """
        self.path = Path(path)
        self.keep_engines = keep_engines
        self.old: Bundle | None = None
        self._unreadable = ""
        if (self.path / MANIFEST_NAME).is_file():
            try:
                self.old = read_bundle(self.path)
            except (BundleError, SpecError) as error:
                self._unreadable = error.problem
        if keep_engines and not any(self._to_carry()):
            got = ", ".join(f"{v.name} ({self._kind(v)})" for v in self._variants())
            raise InputError(
                f"--keep-engines: {self.path} has no engine that can be carried over",
                got=got or self._unreadable or "no bundle",
                expected="fp32 or tf32 engines built with --refittable or --strip",
                remedy="export without --keep-engines",
            )

    def announcement(self) -> list[str]:
        """What goes with the old weights, a line each, with the command that makes it anew; empty where nothing does.

        To be said before the export begins: until then everything can still be copied.
        """
        if self._unreadable:
            return [f"what is at {self.path} is replaced whatever it holds, for it cannot be read: {self._unreadable}"]
        lost = [v for v in self._variants() if v.format != "onnx" or v.precision != _MADE_ANEW]
        if not lost:
            return []
        carried = {v.name for v in self._to_carry()} if self.keep_engines else set()
        lines = [f"{self.path} is replaced; these were made of its old weights:"]
        for variant in lost:
            if variant.name in carried:
                lines.append(
                    f"  {variant.name} ({self._kind(variant)}) is carried over, if the architecture is the same"
                )
            else:
                lines.append(f"  {variant.name} ({self._kind(variant)}) is dropped: {self._anew(variant)}")
        if not carried and any(self._to_carry()):
            lines.append(
                "  to keep engines that can be refitted: --keep-engines; or stop now, export to NEW.gan, then "
                f"ganexport to-trt NEW.gan --refit --engines-from {self.path}"
            )
        return lines

    def carry_into(self, draft: BundleDraft) -> list[Variant]:
        """Carries the engines over that can be refitted, where that was asked for.

        Args:
            draft: the new bundle, with its graphs.

        Returns:
            Those that are in the draft now, without a verdict.

        Raises:
            InputError: an engine is of another architecture. It was asked for, so nothing is to be written.
            BundleIntegrityError: an engine's file is damaged.
        """
        if not self.keep_engines or self.old is None:
            return []
        carried = []
        for variant in list(self._to_carry()):
            engine = variant.engine
            assert engine is not None
            if engine.graph_key not in _keys(draft):
                raise InputError(
                    f"--keep-engines: {variant.name} cannot be carried over: it was built from another architecture",
                    got=f"graph key {engine.graph_key[:16]}…",
                    expected=", ".join(f"{key[:16]}…" for key in _keys(draft)),
                    remedy=f"export without --keep-engines, and build it anew: {_build_command(variant, self.path)}",
                )
            draft.add(variant.file, self.old.read(variant.file))
            new = replace(variant, verdicts=())
            draft.put_variant(new)
            carried.append(new)
        if carried:
            reports = dict(draft.reports.get("engines", {}))
            old_reports = self.old.manifest.reports.get("engines", {})
            note = f"has the weights of the graph before: ganexport to-trt {self.path.name} --refit"
            for variant in carried:
                report = old_reports.get(variant.name, {}) if isinstance(old_reports, dict) else {}
                reports[variant.name] = dict(report) | {"note": note}
            draft.reports["engines"] = reports
        return carried

    def afterword(self, carried: list[Variant]) -> list[str]:
        """What is left to do for the engines that were carried over."""
        names = ", ".join(v.name for v in carried)
        return (
            [f"carried over, unverified until refitted: {names}: ganexport to-trt {self.path} --refit"]
            if carried
            else []
        )

    def _variants(self) -> tuple[Variant, ...]:
        return self.old.manifest.variants if self.old is not None else ()

    def _to_carry(self) -> Iterator[Variant]:
        """Engines whose graph an export makes anew, and whose weights can be exchanged."""
        from ganexport.tensorrt.options import graph_precision

        for variant in self._variants():
            engine = variant.engine
            if engine is not None and engine.refittable and graph_precision(variant.precision) == _MADE_ANEW:
                yield variant

    def _kind(self, variant: Variant) -> str:
        assert self.old is not None
        size = size_text(self.old.manifest.files[variant.file].size_bytes)
        kind = "graph" if variant.engine is None else "refittable engine" if variant.engine.refittable else "engine"
        return f"{variant.precision} {kind}, {size}, {variant.status}"

    def _anew(self, variant: Variant) -> str:
        if variant.engine is None:
            return f"ganexport precision {self.path} {variant.precision}"
        return _build_command(variant, self.path)


def _keys(draft: BundleDraft) -> list[str]:
    """The keys of the draft's graphs."""
    from ganexport.tensorrt.graph_key import graph_key_from_onnx

    files = dict.fromkeys(v.file for v in draft.variants if v.format == "onnx")
    return [graph_key_from_onnx((draft.folder / file).read_bytes(), file) for file in files]


def _build_command(variant: Variant, path: Path) -> str:
    from ganexport.tensorrt.refit_bundle import options_from_record

    assert variant.engine is not None
    return options_from_record(variant.engine, variant, 0).command(path)

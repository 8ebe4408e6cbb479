"""The bundle, NAME.gan/: the unit that is shipped. The format is described in `docs/bundle-format.md`."""

from ganruntime.bundle.manifest import (
    SCHEMA_VERSION,
    EngineRecord,
    FileRecord,
    GoldenRecord,
    Manifest,
    Variant,
    Verdict,
)
from ganruntime.bundle.reader import Bundle, read_bundle
from ganruntime.bundle.tuning import Machine, Pick, Tuning, Untuned
from ganruntime.bundle.writer import BundleDraft, bundle_changed, bundle_written

__all__ = [
    "SCHEMA_VERSION",
    "Bundle",
    "BundleDraft",
    "EngineRecord",
    "FileRecord",
    "GoldenRecord",
    "Machine",
    "Manifest",
    "Pick",
    "Tuning",
    "Untuned",
    "Variant",
    "Verdict",
    "bundle_changed",
    "bundle_written",
    "read_bundle",
]

"""What must hold between the fields of a catalog row, beyond their types. Pure functions, any thread."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from revithion_stems.weight_sources import HubSource, PackageSource, parse_source

if TYPE_CHECKING:  # the catalog imports these rules
    from revithion_stems.catalog import ModelSpec, WeightsFile

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Of models and of stems."""

_SEGMENT = re.compile(r"[0-9]{1,9}(/[1-9][0-9]{0,8})?")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(onnx|safetensors|th|ckpt|pt)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{8,63}")


def check_model(spec: ModelSpec) -> None:
    """Checks one row of the catalog.

    Raises:
        ValueError: A rule is broken; the text says which.
    """
    _require(bool(NAME.fullmatch(spec.name)), "a name is 1–64 letters, digits, '_' and '-'")
    _require(bool(spec.stems) and len(set(spec.stems)) == len(spec.stems), "stems must be distinct and at least one")
    _require(all(NAME.fullmatch(stem) for stem in spec.stems), "a stem is 1–64 letters, digits, '_' and '-'")
    _require(spec.residual_stem in spec.stems, f"residual_stem {spec.residual_stem!r} is not one of its stems")
    _require(8000 <= spec.sample_rate <= 192_000, f"sample_rate {spec.sample_rate} is outside 8000–192000 Hz")
    # The pattern comes first: Fraction("1e999999999") would take all memory.
    in_range = bool(_SEGMENT.fullmatch(spec.segment)) and 0 < spec.segment_s <= 600
    _require(in_range, f"segment {spec.segment!r} is not a fraction of seconds in (0, 600]")
    _require(spec.parameters >= 0, "parameters can't be negative")
    _require(0 <= spec.gflop_per_segment < math.inf, "gflop_per_segment must be finite and not negative")
    _require(spec.licence.commercial_use in ("yes", "no", "unclear"), "commercial_use is yes, no or unclear")
    for quality in spec.quality:
        _require(set(quality.sdr_db) <= {*spec.stems, "mean"}, "quality names a stem that the model does not have")
        _require(all(map(math.isfinite, quality.sdr_db.values())), "quality must be finite")
    for network in spec.networks:
        _require(len(network.stem_weights) == len(spec.stems), f"network {network.signature}: one weight per stem")
        fit = all(0 <= weight < math.inf for weight in network.stem_weights)
        _require(fit, f"network {network.signature}: weights must be finite and not negative")
        _require(bool(network.files), f"network {network.signature}: no weights file")
        for file in network.files:
            _check_file(file)
    if spec.networks:
        totals = [sum(column) for column in zip(*(n.stem_weights for n in spec.networks), strict=True)]
        _require(min(totals) > 0, "every stem needs a network with a positive weight")


def _check_file(file: WeightsFile) -> None:
    _require(bool(_FILE_NAME.fullmatch(file.name)), f"bad file name {file.name!r}")
    _require(file.size is None or file.size > 0, f"file {file.name}: size must be positive")
    given = (file.sha256 is not None, file.sha256_prefix is not None, file.hub_digest)
    _require(sum(given) == 1, f"file {file.name}: give one of sha256, sha256_prefix and hub_digest")
    if file.sha256 is not None:
        _require(bool(_DIGEST.fullmatch(file.sha256)), f"file {file.name}: sha256 must be 64 hex digits")
    if file.sha256_prefix is not None:
        _require(
            bool(_PREFIX.fullmatch(file.sha256_prefix)), f"file {file.name}: sha256_prefix must be 8–63 hex digits"
        )
    _require(bool(file.sources), f"file {file.name}: no source")
    for text in file.sources:
        try:
            source = parse_source(text)
        except ValueError as exc:
            _require(False, f"file {file.name}: {exc}")
        else:
            _require(not file.hub_digest or isinstance(source, HubSource), f"file {file.name}: hub_digest needs hf:")
            if isinstance(source, PackageSource):
                whole = file.sha256 is not None and file.size is not None and len(file.sources) == 1
                _require(whole, f"file {file.name}: package: is the only source, with size and sha256")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)

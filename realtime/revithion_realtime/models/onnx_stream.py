"""A causal network that plays live: an ONNX graph that is called once per hop and remembers in explicit states."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from revithion_realtime.models.asymmetric_stft import Complex64, StreamingStft
from revithion_realtime.models.hop_blocks import HopBlocks
from revithion_realtime.models.onnx_graph import OnnxGraph
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.models.stft_design import StftDesign


class OnnxStream:
    """A :class:`~revithion_realtime.block_processor.BlockProcessor` that runs a graph on one thread.

    ``realtime/MODELS.md`` says what graphs it takes. A waveform graph gets hops of samples, and its delay is its own
    and a hop; a spectrum graph gets columns of a :class:`~revithion_realtime.models.asymmetric_stft.StreamingStft`,
    whose delay it has.

    Args:
        path: The ``.onnx`` file; its name, without the suffix, is the model's.

    Attributes:
        name: What people know the model as.
        stems: Names, in the order of the output.
        sample_rate: Hz; the only rate that it can be prepared for.
        latency_frames: The delay.
        hop_frames: It computes each time that so many frames have come.

    Raises:
        LiveError: ``live.model``: the graph can't be read, or is not what it says.
    """

    def __init__(self, path: Path) -> None:
        self._graph = OnnxGraph(path)
        contract = self._graph.contract
        self.name = path.stem
        self.stems = contract.stems
        self.sample_rate = contract.sample_rate
        self.hop_frames = contract.hop
        stems = len(contract.stems)
        self._blocks: HopBlocks | StreamingStft
        if contract.analysis is not None and contract.synthesis is not None:
            design = StftDesign(
                analysis_frames=contract.analysis, synthesis_frames=contract.synthesis, hop_frames=contract.hop
            )
            self._blocks = StreamingStft(design, self._spectrum, stems=stems)
            self.latency_frames = design.latency_frames
        else:
            self._blocks = HopBlocks(self._hop, stems=stems, hop_frames=contract.hop)
            self.latency_frames = (contract.latency or 0) + contract.hop

    def prepare(self, sample_rate: int) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.prepare`.

        Raises:
            LiveError: ``live.rate``: not the network's own.
        """
        if sample_rate != self.sample_rate:
            raise LiveError(
                f"{self.name} works at {self.sample_rate} Hz, not at {sample_rate} Hz",
                hint="Wrap it in Resampled, as revithion_realtime.models.model_choice does.",
                code="live.rate",
            )
        self.reset()

    def process(self, block: Float32, out: Float32) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.process`."""
        self._blocks.process(block, out)

    def reset(self) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.reset`."""
        self._graph.reset()
        self._blocks.reset()

    def _hop(self, samples: Float32, stems: Float32) -> None:
        self._graph.audio[...] = samples
        self._graph.run()
        stems[...] = self._graph.stems

    def _spectrum(self, mix: Complex64) -> Complex64:
        self._graph.audio.view(np.complex64)[..., 0] = mix  # real and imaginary part lie side by side
        self._graph.run()
        return self._graph.stems.view(np.complex64)[..., 0]

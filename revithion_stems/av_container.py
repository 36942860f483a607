"""Media files opened with FFmpeg's demuxers: local, from a list of formats, with bounded reading.

A file is handed to FFmpeg as an open file, so that no protocol is ever involved, and whatever a demuxer may want to
open besides is refused. Formats that are lists of other files (HLS, DASH, concat, image sequences, …) are not in
:data:`FORMATS`. Only decoders of audio are opened.
"""

from __future__ import annotations

import ctypes
import functools
import io
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from revithion_stems.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer

FORMATS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dsf", "dts", "dtshd", "eac3", "flac", "flv"),
    *("loas", "matroska", "mlp", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "ogg", "rm", "tak", "truehd", "tta"),
    *("voc", "w64", "wav", "wtv", "wv", "xwma"),
)
"""Demuxers that may be used, by FFmpeg's names."""

DECODERS = (
    *("aac", "aac_latm", "ac3", "alac", "als", "ape", "dca", "eac3", "flac", "mlp", "tak", "truehd", "tta", "wavpack"),
    *("amrnb", "amrwb", "atrac3", "atrac3plus", "cook", "gsm", "gsm_ms", "libopencore_amrnb", "libopencore_amrwb"),
    *("libopus", "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "mpc7", "mpc8", "nellymoser", "opus"),
    *("qdm2", "speex", "vorbis", "wmalossless", "wmapro", "wmav1", "wmav2", "wmavoice"),
    *("adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "adpcm_swf", "adpcm_yamaha"),
    *("dsd_lsbf", "dsd_lsbf_planar", "dsd_msbf", "dsd_msbf_planar"),
    *("pcm_alaw", "pcm_bluray", "pcm_dvd", "pcm_f32be", "pcm_f32le", "pcm_f64be", "pcm_f64le", "pcm_mulaw", "pcm_s8"),
    *("pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le", "pcm_u8", "s302m"),
)
"""Decoders that may be used, by FFmpeg's names."""

_OPTIONS = {
    "format_whitelist": ",".join(FORMATS),
    "codec_whitelist": ",".join(DECODERS),
    "max_streams": "64",
}

_MOST_ALLOCATED = 256 * 2**20
"""At once; the index of a day of AAC takes half. What a damaged file of 2 KB declares makes FFmpeg fill gigabytes."""

_MOST_READ_RATIO = 64
_MOST_READ_SLACK = 64 * 2**20
_CALL_BYTES = 4096
"""What a read or a seek counts for besides what was read."""

_MOST_BYTES = 2**20
"""Of one read: Python allocates what is asked for, and a damaged file asks for gigabytes."""


class MediaFile:
    """A file that FFmpeg has opened. One thread at a time.

    Attributes:
        container: FFmpeg's demuxer. Bytes of tags that are not UTF-8 are surrogates in it (PEP 383).
        size: Of the file, in bytes.

    Raises:
        InputError: No format of :data:`FORMATS`, or a damaged header.
        OSError: The file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        import av
        from av.error import FFmpegError

        _limit_allocations()
        self._path = path
        self._file = _BoundedFile(path)
        self.size = self._file.size
        try:
            self.container: InputContainer = av.open(
                self._file,
                "r",
                metadata_errors="surrogateescape",
                container_options=_OPTIONS,
                io_open=_refuse,
            )
        except FFmpegError as exc:
            self._file.close()
            self.check()
            raise not_audio(path, exc.strerror or str(exc)) from exc
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> InputContainer:
        return self.container

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self.container.close()
        self._file.close()

    def check(self) -> None:
        """Tells how reading went, since to FFmpeg whatever goes wrong is the end of the file.

        Raises:
            InputError: The file was read so often that its index must be wrong.
            OSError: It could not be read.
        """
        if self._file.error is not None:
            raise self._file.error
        if self._file.left < 0:
            raise InputError(
                f"{self._path} is damaged: its index points at the same bytes again and again",
                hint="Copy or export it again.",
                code="input.truncated",
            )


def not_audio(path: Path, reason: str) -> InputError:
    """The error of a file that no decoder takes."""
    return InputError(
        f"{path} is not audio that can be read here: {reason.rstrip('.')}",
        hint="Convert it first, for example to WAV or FLAC with ffmpeg.",
        code="input.not_audio",
    )


class _BoundedFile(io.RawIOBase):
    """What FFmpeg reads: a file that seems to be at its end after it has been read some tens of times.

    A damaged index may point at the same bytes again and again; this ends it. Of the name FFmpeg sees the extension.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = path.stat().st_size
        self.name = "audio" + path.suffix.encode("ascii", "replace").decode()
        self.left = self.size * _MOST_READ_RATIO + _MOST_READ_SLACK
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self.left -= _CALL_BYTES
        if self.left < 0:
            return b""
        try:
            data = self._file.read(min(size, _MOST_BYTES)) or b""
        except OSError as exc:
            self.error = exc
            return b""
        self.left -= len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.left -= _CALL_BYTES
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError):
            return -1  # FFmpeg's way to tell; damaged files name such positions

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"a media file may not open another one: {url}")


@functools.cache
def _limit_allocations() -> None:
    """Bounds each of FFmpeg's allocations in this process; where its library is not the wheel's, its own 2 GiB hold."""
    import av

    package = Path(av.__file__).parent
    for folder in (package.parent / "av.libs", package / ".dylibs"):
        for library in folder.glob("*avutil*"):
            ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(_MOST_ALLOCATED))

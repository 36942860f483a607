"""Constants of the wire protocol, as bridge/PROTOCOL.md has them.

Made by docs/make_protocol.py: don't edit. No imports: it is copied into the DAW's own interpreter.
"""

PROTOCOL_VERSION = 1
"""Of the messages."""

MAX_MESSAGE_BYTES = 262_144
"""Of one message in either direction."""

HEARTBEAT_S = 1.0
"""Seconds between two Heartbeat events."""

CONNECTION_FILE = "connection.json"
"""In the folder `daemon` of the state folder: addresses, keys and token."""

OSC_PREFIX = "/revithion/v1"
"""All OSC addresses begin with it."""

OSC_SESSION = {
    "hello": "/revithion/v1/hello",
    "subscribe": "/revithion/v1/subscribe",
    "unsubscribe": "/revithion/v1/unsubscribe",
    "error": "/revithion/v1/error",
}
"""What OSC has besides the requests."""

DOORS = {
    "job.submit": "work",
    "job.list": "work",
    "job.wait": "work",
    "job.retry": "work",
    "job.delete": "work",
    "job.clear": "work",
    "job.status": "control",
    "job.cancel": "control",
    "job.priority": "control",
    "queue.pause": "control",
    "queue.resume": "control",
    "daemon.status": "control",
    "events.snapshot": "control",
    "events.since": "control",
    "daemon.shutdown": "control",
    "live.set": "control",
    "live.get": "control",
    "live.start": "work",
    "live.stop": "work",
    "live.monitor": "control",
    "live.scene.store": "control",
    "live.scene.recall": "control",
    "live.record": "work",
    "daw.ring": "control",
    "daw.sessions": "work",
    "daw.fader": "work",
}
"""Request: the ZeroMQ socket that it goes to."""

OSC_REQUESTS = {
    "/revithion/v1/job/submit": {
        "request": "job.submit",
        "required": (
            "job.source",
            "job.folder",
        ),
        "optional": (
            "job.model",
            "priority",
        ),
        "reply": (
            "job.id",
            "job.state",
            "job.done",
            "job.total",
            "job.remaining_s",
        ),
    },
    "/revithion/v1/job/retry": {
        "request": "job.retry",
        "required": ("job_id",),
        "optional": (),
        "reply": (
            "job.id",
            "job.state",
            "job.done",
            "job.total",
            "job.remaining_s",
        ),
    },
    "/revithion/v1/job/status": {
        "request": "job.status",
        "required": ("job_id",),
        "optional": (),
        "reply": (
            "job.id",
            "job.state",
            "job.done",
            "job.total",
            "job.remaining_s",
        ),
    },
    "/revithion/v1/job/cancel": {
        "request": "job.cancel",
        "required": ("job_id",),
        "optional": (),
        "reply": (
            "job.id",
            "job.state",
            "job.done",
            "job.total",
            "job.remaining_s",
        ),
    },
    "/revithion/v1/job/priority": {
        "request": "job.priority",
        "required": (
            "job_id",
            "priority",
        ),
        "optional": (),
        "reply": (
            "job.id",
            "job.state",
            "job.done",
            "job.total",
            "job.remaining_s",
        ),
    },
    "/revithion/v1/queue/pause": {
        "request": "queue.pause",
        "required": (),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/queue/resume": {
        "request": "queue.resume",
        "required": (),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/status": {
        "request": "daemon.status",
        "required": (),
        "optional": (),
        "reply": (
            "version",
            "paused",
            "seq",
            "uptime_s",
        ),
    },
    "/revithion/v1/live/{stem}/gain": {
        "request": "live.set",
        "required": ("gain_db",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/fader": {
        "request": "live.set",
        "required": ("fader",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/mute": {
        "request": "live.set",
        "required": ("muted",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/pan": {
        "request": "live.set",
        "required": ("pan",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/solo": {
        "request": "live.set",
        "required": ("solo",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/low": {
        "request": "live.set",
        "required": ("low_db",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/mid": {
        "request": "live.set",
        "required": ("mid_db",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/high": {
        "request": "live.set",
        "required": ("high_db",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/{stem}/filter": {
        "request": "live.set",
        "required": ("filter",),
        "optional": (),
        "reply": (
            "stems.0.stem",
            "stems.0.gain_db",
            "stems.0.muted",
        ),
    },
    "/revithion/v1/live/start": {
        "request": "live.start",
        "required": (),
        "optional": (
            "source",
            "model",
            "device",
        ),
        "reply": (
            "session.model",
            "session.device",
            "session.budget.sample_rate",
        ),
    },
    "/revithion/v1/live/stop": {
        "request": "live.stop",
        "required": (),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/live/monitor": {
        "request": "live.monitor",
        "required": ("gain_db",),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/live/scene/store": {
        "request": "live.scene.store",
        "required": ("name",),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/live/scene/{name}/store": {
        "request": "live.scene.store",
        "required": (),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/live/scene/recall": {
        "request": "live.scene.recall",
        "required": ("name",),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/live/scene/{name}/recall": {
        "request": "live.scene.recall",
        "required": (),
        "optional": (),
        "reply": (),
    },
    "/revithion/v1/live/record": {
        "request": "live.record",
        "required": ("on",),
        "optional": ("folder",),
        "reply": ("folder",),
    },
    "/revithion/v1/daw/ring": {
        "request": "daw.ring",
        "required": (),
        "optional": ("box",),
        "reply": (),
    },
    "/revithion/v1/daw/{stem}/gain": {
        "request": "daw.fader",
        "required": ("gain_db",),
        "optional": (
            "role",
            "box",
        ),
        "reply": (
            "strips.0.name",
            "strips.0.gain_db",
            "strips.0.muted",
        ),
    },
    "/revithion/v1/daw/{stem}/mute": {
        "request": "daw.fader",
        "required": ("muted",),
        "optional": (
            "role",
            "box",
        ),
        "reply": (
            "strips.0.name",
            "strips.0.gain_db",
            "strips.0.muted",
        ),
    },
}
"""OSC address: its request, and fields as arguments after the token."""

EVENTS = {
    "JobChanged": {
        "topic": "job/{job_id}/changed",
        "osc": "/revithion/v1/event/changed",
        "arguments": (
            "job_id",
            "state",
            "source",
            "error.code",
            "error.message",
        ),
    },
    "JobProgress": {
        "topic": "job/{job_id}/progress",
        "osc": "/revithion/v1/event/progress",
        "arguments": (
            "job_id",
            "done",
            "total",
            "elapsed_s",
            "remaining_s",
        ),
    },
    "StemReady": {
        "topic": "job/{job_id}/stem",
        "osc": "/revithion/v1/event/stem",
        "arguments": (
            "job_id",
            "stem",
            "path",
            "start_frame",
            "frames",
            "sample_rate",
            "final",
        ),
    },
    "JobSummary": {
        "topic": "job/{job_id}/summary",
        "osc": "/revithion/v1/event/summary",
        "arguments": (
            "job_id",
            "model",
            "duration_s",
            "elapsed_s",
            "exact",
            "null_db",
            "cached",
        ),
    },
    "Notice": {
        "topic": "job/{job_id}/notice",
        "osc": "/revithion/v1/event/notice",
        "arguments": (
            "job_id",
            "code",
            "message",
        ),
    },
    "DownloadProgress": {
        "topic": "job/{job_id}/download",
        "osc": "/revithion/v1/event/download",
        "arguments": (
            "job_id",
            "file",
            "done_bytes",
            "total_bytes",
        ),
    },
    "JobDeleted": {
        "topic": "job/{job_id}/deleted",
        "osc": "/revithion/v1/event/deleted",
        "arguments": ("job_id",),
    },
    "QueueChanged": {
        "topic": "queue",
        "osc": "/revithion/v1/event/queue",
        "arguments": (
            "paused",
            "stopping",
        ),
    },
    "LiveChanged": {
        "topic": "live/{stem}",
        "osc": "/revithion/v1/live/{stem}/state",
        "arguments": (
            "gain_db",
            "muted",
        ),
    },
    "LiveSessionChanged": {
        "topic": "live",
        "osc": "/revithion/v1/live/state",
        "arguments": (
            "phase",
            "model",
            "device",
            "sample_rate",
            "latency_frames",
            "message",
        ),
    },
    "LiveLevels": {
        "topic": "levels",
        "osc": "/revithion/v1/live/level",
        "arguments": (
            "left_db",
            "right_db",
            "late_times",
            "xruns",
            "callback_load",
            "inference_load",
        ),
    },
    "Heartbeat": {
        "topic": "heartbeat",
        "osc": "/revithion/v1/event/heartbeat",
        "arguments": (
            "seq",
            "waiting",
            "running",
        ),
    },
}
"""Event: its ZeroMQ topic, OSC address and OSC arguments."""

JOB_STATES = {
    "queued": False,
    "loading": False,
    "separating": False,
    "writing": False,
    "done": True,
    "failed": True,
    "cancelled": True,
}
"""State of a job: whether it is final."""

PRIORITIES = (
    "interactive",
    "normal",
    "batch",
)
"""Classes of jobs; a class goes before all later ones."""

ERRORS = (
    "protocol.malformed",
    "protocol.version",
    "protocol.door",
    "protocol.rate",
    "auth.token",
    "auth.limited",
    "job.unknown",
    "job.transition",
    "job.key_reused",
    "job.quota",
    "path.relative",
    "path.outside",
    "events.gone",
    "live.stem",
    "live.running",
    "live.idle",
    "daemon.unreachable",
    "daemon.running",
    "daemon.start_failed",
    "daemon.stopping",
    "daemon.disk_full",
    "daemon.ledger",
    "daemon.service",
    "daw.plan",
    "daw.unknown",
    "daw.absent",
    "daw.ambiguous",
    "daw.busy",
    "daw.refused",
    "daw.selection",
    "daw.project",
    "daw.in_use",
    "daw.strip",
    "daw.install",
    "midi.backend",
    "midi.port",
    "worker.lost",
)
"""Codes of the daemon's errors; those of jobs stand in docs/exit-codes.md."""

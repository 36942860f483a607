"""What a reply gives up when it is larger than a message may be."""

from __future__ import annotations

import msgspec

from revithion_bridge.messages import DawSessions, DawStrips, Events, JobInfo, JobList, JobReply, Reply, Snapshot


def smaller_reply(reply: Reply) -> Reply:
    """A smaller form of a reply; the reply itself, if there is none.

    Jobs first lose the ``keep`` of their parameters, which may be long and which nobody asks for; then lists lose what
    can be asked for again, and histories their beginning.
    """
    match reply:
        case JobReply() if reply.job.parameters.keep:
            return msgspec.structs.replace(reply, job=_without_keep(reply.job))
        case JobReply() if reply.history:
            return msgspec.structs.replace(reply, history=reply.history[(len(reply.history) + 1) // 2 :])  # the newest
        case JobList() | Snapshot() if any(job.parameters.keep for job in reply.jobs):
            return msgspec.structs.replace(reply, jobs=tuple(map(_without_keep, reply.jobs)))
        case JobList() | Snapshot() if len(reply.jobs) > 1:
            return msgspec.structs.replace(reply, jobs=reply.jobs[: len(reply.jobs) // 2], more=True)
        case Events() if len(reply.events) > 1:
            return msgspec.structs.replace(reply, events=reply.events[: len(reply.events) // 2])
        case DawSessions() if len(reply.sessions) + len(reply.requests) > 1:
            some = max(len(reply.sessions), len(reply.requests)) // 2
            return msgspec.structs.replace(
                reply, sessions=reply.sessions[:some], requests=reply.requests[:some], more=True
            )
        case DawSessions() if reply.sessions and reply.sessions[0].strips:
            (only,) = reply.sessions
            fewer = msgspec.structs.replace(only, strips=only.strips[: len(only.strips) // 2])
            return msgspec.structs.replace(reply, sessions=(fewer,), more=True)
        case DawStrips() if len(reply.strips) > 1:
            return msgspec.structs.replace(reply, strips=reply.strips[: len(reply.strips) // 2])
        case _:
            return reply


def _without_keep(job: JobInfo) -> JobInfo:
    return msgspec.structs.replace(job, parameters=msgspec.structs.replace(job.parameters, keep=()))

"""The declaration of every metric: name, kind, help, labels, buckets. Measures nothing.

No label holds a name, a text or an id: a radio is its place in the list `radios`, and every other
label has one of a few values of our own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Roles = Literal["both", "bridge", "agent"]

#: Seconds of a commit: 5 ms on a good card, a second on a worn one.
COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
#: Seconds until a person's radio acknowledged: a neighbour takes two, four relays a minute.
ACK_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
#: Seconds of a model call on anything from a desktop to a Pi that reasons first.
MODEL_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its label values."""

    name: str  #: as scraped
    kind: Kind
    roles: Roles
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def families(role: str) -> Iterator[Family]:
    """Return the metrics that a process of this role has."""
    return (family for family in FAMILIES if family.roles in ("both", role))


def _both(name: str, kind: Kind, text: str, *labels: str) -> Family:
    return Family(name, kind, "both", text, labels)


def _bridge(name: str, kind: Kind, text: str, *labels: str) -> Family:
    return Family(name, kind, "bridge", text, labels)


def _agent(name: str, kind: Kind, text: str, *labels: str) -> Family:
    return Family(name, kind, "agent", text, labels)


FAMILIES: Final = (
    _both("meshllm_build_info", "gauge", "Always 1; the version as a label.", "version"),
    _both("meshllm_live", "gauge", "1 while every loop of the process turns."),
    _both("meshllm_ready", "gauge", "1 while the process can do what it is for."),
    _both("meshllm_log_events_total", "counter", "Events by level, from info on.", "level"),
    _both("meshllm_log_lines_lost_total", "counter", "Log lines that never reached the log file."),
    Family(
        "meshllm_commit_seconds",
        "histogram",
        "both",
        "Time to replace a file durably.",
        buckets=COMMIT_BUCKETS,
    ),
    _both("meshllm_commit_failures_total", "counter", "Files that could not be replaced."),
    _both("meshllm_disk_free_bytes", "gauge", "Free space where the data lie."),
    _both("meshllm_storage_state", "gauge", "1 for the state that the disk is in.", "state"),
    _bridge(
        "meshllm_messages_received_total",
        "counter",
        "Texts heard and written to their thread.",
        "kind",
    ),
    _bridge("meshllm_duplicates_dropped_total", "counter", "Texts that were written before."),
    _bridge(
        "meshllm_messages_lost_total", "counter", "Texts heard that neither disk nor memory took."
    ),
    _bridge(
        "meshllm_messages_unwritten",
        "gauge",
        "Texts heard that are in memory only, since the disk refuses them.",
        "radio",
    ),
    _bridge(
        "meshllm_send_states_total",
        "counter",
        "Times that a row of ours came into a state.",
        "state",
        "reason",
    ),
    _bridge(
        "meshllm_send_retries_total",
        "counter",
        "Tries that were put off to be made again.",
        "reason",
    ),
    Family(
        "meshllm_ack_seconds",
        "histogram",
        "bridge",
        "Time from the last hand-over of a direct message to the ACK of its addressee.",
        buckets=ACK_BUCKETS,
    ),
    _bridge("meshllm_radio_up", "gauge", "1 while the radio is connected.", "radio"),
    _bridge(
        "meshllm_radio_connects_total",
        "counter",
        "Connections made; all but the first are reconnects.",
        "radio",
    ),
    _bridge(
        "meshllm_queue_rows",
        "gauge",
        "Rows to be sent: waiting ones, and held ones until somebody is heard.",
        "radio",
        "state",
    ),
    _bridge(
        "meshllm_queue_oldest_seconds",
        "gauge",
        "Age of the oldest row to be sent, held ones left out; 0 for none.",
        "radio",
    ),
    _bridge(
        "meshllm_airtime_last_hour_seconds",
        "gauge",
        "Time on the air of our texts in the last hour, without the radio's repeats.",
        "radio",
    ),
    _bridge(
        "meshllm_channel_use_ratio",
        "gauge",
        "Share of time that the channel is busy, as the radio last said.",
        "radio",
    ),
    _bridge(
        "meshllm_air_transmit_ratio",
        "gauge",
        "Share of the last hour that the radio sent, as it last said.",
        "radio",
    ),
    _agent("meshllm_questions_asked_total", "counter", "Questions handed to the model."),
    _agent(
        "meshllm_questions_skipped_total", "counter", "Questions that are not answered.", "reason"
    ),
    _agent(
        "meshllm_questions_deferred_total",
        "counter",
        "Questions that are answered later.",
        "reason",
    ),
    _agent("meshllm_questions_open", "gauge", "Questions that wait or are being answered."),
    _agent("meshllm_questions_oldest_seconds", "gauge", "Age of the oldest of them; 0 for none."),
    _agent(
        "meshllm_replies_queued_total",
        "counter",
        "Answers and notices that became durable.",
        "kind",
    ),
    _agent(
        "meshllm_reply_parts_queued_total",
        "counter",
        "Messages that these answers and notices take.",
        "kind",
    ),
    _agent("meshllm_model_ready", "gauge", "1 while the model may be asked."),
    Family(
        "meshllm_model_call_seconds",
        "histogram",
        "agent",
        "Time of a model call by how it ended.",
        ("outcome",),
        MODEL_BUCKETS,
    ),
    _agent(
        "meshllm_model_call_retries_total",
        "counter",
        "Model calls that were tried once more at once.",
    ),
    _agent(
        "meshllm_model_tokens_total",
        "counter",
        "Tokens of prompts and completions, as the server counts them.",
        "kind",
    ),
    _agent(
        "meshllm_model_tokens_seconds_total",
        "counter",
        "Time that the model took for these tokens; little of it for a prompt means reuse.",
        "kind",
    ),
)

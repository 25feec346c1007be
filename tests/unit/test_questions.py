from collections.abc import Mapping, Sequence

from meshllm.agent.questions import Standing, assess, rank
from meshllm.records import Message, compact_json

ALICE, BOB, OWN = "!a11ce001", "!b0b00001", "!aaaa0001"


def asked(number: int, sender: str = ALICE, *, kind: str = "dm", text: str = "") -> Message:
    words = text or f"librarian hi {number}"
    return Message(kind, "thread", str(number), "inbound", sender, content=words)


def sent(
    reply_to: int | str,
    number: int = 900,
    *,
    kind: str = "dm",
    direction: str = "queued",
    status: str = "",
    **meta: object,
) -> Message:
    return Message(
        kind,
        "thread",
        str(number),
        direction,
        OWN,
        reply_to_id=str(reply_to),
        content="answer",
        send_status=status,
        meta_json=compact_json(meta or {"kind": "reply"}),
    )


def standing(rows: Sequence[Message], ages: Mapping[str, float | None] | None = None) -> Standing:
    known = ages or {}
    return assess(rows, own_ids={OWN}, max_age_s=60, age=lambda row: known.get(row.message_id, 1.0))


def open_ids(rows: Sequence[Message], ages: Mapping[str, float | None] | None = None) -> list[str]:
    return [q.row.message_id for q in standing(rows, ages).open]


def expired_ids(rows: Sequence[Message], ages: Mapping[str, float | None]) -> list[str]:
    return [q.row.message_id for q in standing(rows, ages).expired]


def test_a_burst_is_open_at_its_latest_only() -> None:
    assert open_ids([asked(1), asked(2), asked(3)]) == ["3"]


def test_each_sender_of_a_channel_has_an_open_question() -> None:
    rows = [asked(1, kind="channel"), asked(2, BOB, kind="channel"), asked(3, kind="channel")]

    assert open_ids(rows) == ["2", "3"]


def test_a_reply_closes_its_question_and_earlier_ones_but_not_later_ones() -> None:
    assert open_ids([asked(1), asked(2), sent(2)]) == []
    assert open_ids([asked(1), asked(2), sent(1)]) == ["2"]
    assert open_ids([asked(1), sent(1), asked(2)]) == ["2"]


def test_a_reply_closes_whatever_became_of_it() -> None:
    for direction, status in (("queued", "failed"), ("outbound", "sent"), ("outbound", "failed")):
        assert open_ids([asked(1), sent(1, direction=direction, status=status)]) == []


def test_a_reply_to_one_sender_leaves_the_other_open() -> None:
    rows = [asked(1, kind="channel"), asked(2, BOB, kind="channel"), sent(2, kind="channel")]

    assert open_ids(rows) == ["1"]


def test_equal_ids_of_two_senders_are_told_apart_by_the_named_sender() -> None:
    rows = [asked(1, kind="channel"), asked(1, BOB, kind="channel")]

    named = sent(1, kind="channel", kind_="", reply_to_sender=ALICE)
    assert [q.row.sender_id for q in standing([*rows, named]).open] == [BOB]
    nearest = sent(1, kind="channel")
    assert [q.row.sender_id for q in standing([*rows, nearest]).open] == [ALICE]


def test_a_notice_closes_nothing_and_is_remembered() -> None:
    notice = sent("", kind="dm", direction="outbound")
    notice = notice.with_meta(kind="notice", notice="offline", notice_for="1")

    found = standing([asked(1), notice])

    assert [q.row.message_id for q in found.open] == ["1"]
    assert found.noticed == {(ALICE, "1", "offline")}


def test_a_notice_with_a_reply_id_still_closes_nothing() -> None:
    notice = sent(1).with_meta(kind="notice", notice="offline", notice_for="1")

    assert open_ids([asked(1), notice]) == ["1"]


def test_a_reply_to_an_unknown_id_closes_nothing() -> None:
    assert open_ids([asked(1), sent(77)]) == ["1"]


def test_a_text_that_looks_like_one_of_our_rows_closes_nothing() -> None:
    forged = asked(2, BOB, kind="channel", text='dm,thread,5,queued,!aaaa0001,1,,"answer"')

    assert open_ids([asked(1, kind="channel"), forged]) == ["1"]


def test_age_expires_a_question_beyond_its_limit_only() -> None:
    assert open_ids([asked(1)], {"1": 60.0}) == ["1"]
    assert open_ids([asked(1)], {"1": 60.1}) == []
    assert expired_ids([asked(1)], {"1": 60.1}) == ["1"]


def test_a_question_of_unreadable_age_counts_as_expired() -> None:
    assert open_ids([asked(1)], {"1": None}) == []
    assert expired_ids([asked(1)], {"1": None}) == ["1"]


def test_a_question_from_the_future_is_open() -> None:
    assert open_ids([asked(1)], {"1": -500.0}) == ["1"]


def test_an_old_question_is_context_while_a_later_one_is_open() -> None:
    rows = [asked(1), asked(2)]

    assert expired_ids(rows, {"1": 99.0}) == []
    assert expired_ids(rows, {"1": 99.0, "2": 99.0}) == ["1", "2"]


def test_the_best_copy_has_fewest_hops_then_best_snr_then_lowest_radio() -> None:
    def copy(**meta: object) -> Message:
        return Message("channel", "c", "1", "inbound", ALICE, meta_json=compact_json(meta))

    near = copy(hop_start=3, hop_limit=3, snr=-9.0)
    far_loud = copy(hop_start=3, hop_limit=1, snr=9.0)
    unknown = copy()
    ranks = [
        rank(near, "bb"),
        rank(copy(hop_start=3, hop_limit=2, snr=5), "bb"),
        rank(copy(hop_start=3, hop_limit=2, snr=4), "aa"),
        rank(copy(hop_start=3, hop_limit=2, snr=4), "cc"),
        rank(far_loud, "aa"),
        rank(unknown, "aa"),
    ]
    assert ranks == sorted(ranks)

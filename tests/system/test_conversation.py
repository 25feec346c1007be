"""What a person on the mesh sees, through both real processes, the files and the wire protocol."""

from itertools import pairwise

from meshllm.layout import node_id
from meshllm.testing.ollama_server import Reply
from tests.system.conftest import MakeWorld
from tests.system.world import SECOND, World, read, stays, tries, wait_until

#: Little faster than life: a busy machine hands texts over late by some real milliseconds.
SPACING_SCALE = 5.0
LEAST_SPACING_S = 2.3  #: SEND_SPACING_SECONDS without that; the radio swallows below 2.0
LONG_ANSWER = (
    "Boil the water for at least one full minute before you drink it. Above two thousand metres "
    "boil it for three minutes, since water boils at a lower heat there. Let it cool by itself in "
    "a clean closed vessel. Clear water that stands in the sun in a plastic bottle for six hours "
    "is safer than untreated water, but not as safe as boiled water."
)


def test_dm_gets_one_answer_that_points_at_it(world: World) -> None:
    ada = world.newcomer()

    question = ada.say("where is the well?", to=world.radio)
    row = world.wait_delivered(ada, question)

    [heard] = world.answers_heard(ada, question)
    assert (heard.text, heard.is_dm) == ("You asked: where is the well?", True)
    assert (heard.packet_id, heard.sender) == (int(row.message_id), world.radio.num)
    assert (row.direction, row.send_status) == ("outbound", "sent")
    assert (tries(row)[-1]["id"], tries(row)[-1]["result"]) == (heard.packet_id, "delivered")
    assert [r.direction for r in world.rows(ada)] == ["inbound", "outbound"]
    assert len(ada.heard) == 1


def test_page_row_and_thread_agree_on_an_answer(world: World) -> None:
    ada = world.newcomer()

    question = ada.say("who keeps the key?", to=world.radio)
    reply = world.wait_delivered(ada, question)

    [logged] = world.prompts(question)
    [page] = world.pages(question)
    assert page == world.files.prompt_page(logged.prompt_id)
    assert reply.meta["prompt_id"] == logged.prompt_id
    assert (logged.thread_key, logged.thread_type) == (ada.node_id, "dm")
    assert logged.node_uid == node_id(world.radio.num).removeprefix("!")
    assert logged.response_message_id == reply.message_id
    text = page.read_text(encoding="utf-8")
    assert "who keeps the key?" in text
    assert reply.content in text


def test_channel_answers_only_who_calls_the_librarian(world: World) -> None:
    ada, bob = world.newcomer(), world.newcomer("Bob Example")
    thread = world.tree().channel_thread(SECOND.lower())

    ada.say("does anybody hear me? (1)", channel=1)
    question = ada.say("Librarian, who hears me? (2)", channel=1)
    bob.say("librarians are nice (3)", channel=1)
    answer = bob.wait_for(lambda heard: heard.reply_id == question, 10)

    assert answer is not None
    assert (answer.channel, answer.is_dm) == (1, False)
    assert "who hears me? (2)" in (answer.text or "")
    wait_until(lambda: len([r for r in read(thread) if r.sender_id == bob.node_id]) == 1, "heard")
    asked = {r.message_id for r in read(thread) if r.sender_id in {ada.node_id, bob.node_id}}

    def answered() -> list[str]:
        return [r.reply_to_id for r in read(thread) if r.is_outgoing and r.reply_to_id in asked]

    assert stays(lambda: answered() == [str(question)], 0.4)
    assert world.rows(ada) == ()
    assert (world.model.calls_about("(1)"), world.model.calls_about("(3)")) == (0, 0)


def test_reaction_is_recorded_and_not_answered(world: World) -> None:
    ada = world.newcomer()
    question = ada.say("is it raining?", to=world.radio)
    world.wait_delivered(ada, question)
    [answer] = world.answers_heard(ada, question)

    ada.say("👍", to=world.radio, reply_to=answer, emoji=1)

    wait_until(lambda: len(world.rows(ada)) == 3, "the reaction on disk")
    assert stays(lambda: len(world.rows(ada)) == 3, 0.4)
    assert len(ada.heard) == 1


def test_two_parts_arrive_in_order_and_spaced(make_world: MakeWorld) -> None:
    world = make_world(scale=SPACING_SCALE)
    world.start()
    ada = world.newcomer()
    world.model.answers["clean water"] = Reply(LONG_ANSWER)

    question = ada.say("how do I get clean water?", to=world.radio)

    wait_until(lambda: len(ada.heard) == 2, "both parts")
    first, second = ada.heard
    assert first.reply_id == question
    assert ((first.text or "")[:6], (second.text or "")[:6]) == ("(1/2) ", "(2/2) ")
    assert max(len(first.payload), len(second.payload)) <= 200
    sent = {item.packet.id: item.at for item in world.radio.sent}
    assert sent[second.packet_id] - sent[first.packet_id] >= LEAST_SPACING_S


def test_person_who_asks_again_has_the_earlier_answer_in_context(world: World) -> None:
    ada = world.newcomer()
    first = ada.say("my mule is called Fox", to=world.radio)
    world.wait_delivered(ada, first)

    second = ada.say("what is my mule called?", to=world.radio)
    world.wait_delivered(ada, second)

    [body] = [b for b in world.model.chats if "what is my mule called?" in str(b)]
    messages = body["messages"]
    assert isinstance(messages, list)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[1]["content"].startswith("my mule is called Fox\n\n")
    assert messages[2]["content"] == "You asked: my mule is called Fox"


def test_every_text_on_one_radio_keeps_its_distance(make_world: MakeWorld) -> None:
    world = make_world(scale=SPACING_SCALE)
    world.start()
    people = [world.newcomer() for _ in range(3)]

    questions = [
        person.say(f"who is number {i}?", to=world.radio) for i, person in enumerate(people)
    ]
    for person, question in zip(people, questions, strict=True):
        world.wait_delivered(person, question)

    times = [item.at for item in world.radio.sent]
    assert min(later - earlier for earlier, later in pairwise(times)) >= LEAST_SPACING_S
    for person, question in zip(people, questions, strict=True):
        assert len(world.answers_heard(person, question)) == 1

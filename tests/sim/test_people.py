"""People, their scripts, and the mesh as a whole."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from meshllm.airtime import airtime_s
from meshllm.clock import SystemClock
from meshllm.errors import UserError
from meshllm.sim import wire
from meshllm.sim.client import StreamClient
from meshllm.sim.mesh import SimMesh
from meshllm.sim.node import SimRadio
from meshllm.sim.packets import KnownNode, Packet, Port, RoutingError
from meshllm.sim.script import apply, load

MakeMesh = Callable[..., SimMesh]
Connect = Callable[[SimRadio], StreamClient]


def test_people_talk_to_each_other_without_any_radio_of_ours(make_mesh: MakeMesh) -> None:
    mesh = make_mesh()
    ada, bob = mesh.add_person("Ada Example"), mesh.add_person("Bob Example")

    question = ada.say("are you there?", to=bob)
    heard = bob.wait_for("there", 5)
    assert heard is not None
    bob.say("yes", to=ada, reply_to=heard)
    answer = ada.wait_for(lambda text: text.reply_id == question, 5)

    assert answer is not None
    assert (answer.text, answer.sender_name, answer.pki) == ("yes", "Bob Example", True)


def test_waiting_in_vain_gives_nothing(make_mesh: MakeMesh) -> None:
    ada = make_mesh().add_person()

    assert ada.wait_for("anything", 0.01) is None
    assert ada.wait_delivery(1, 0.01) is None


def test_wait_can_leave_out_what_was_heard_before(make_mesh: MakeMesh) -> None:
    mesh = make_mesh()
    ada, bob = mesh.add_person("Ada Example"), mesh.add_person("Bob Example")
    bob.say("first", to=ada)
    assert ada.wait_for("first", 5) is not None

    assert ada.wait_for(lambda _heard: True, 0.01, skip=1) is None


def test_person_is_told_what_became_of_a_text(make_mesh: MakeMesh) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()

    delivery = ada.wait_delivery(ada.say("x" * 221, to=radio), 5)

    assert delivery is not None
    assert (delivery.error, delivery.reported_by) == (RoutingError.TOO_LARGE, ada.num)


def test_person_away_misses_what_was_said(make_mesh: MakeMesh) -> None:
    mesh = make_mesh(1000.0)
    ada, bob = mesh.add_person("Ada Example"), mesh.add_person("Bob Example")
    bob.switch_off()

    delivery = ada.wait_delivery(ada.say("away?", to=bob), 10)
    bob.switch_on()
    ada.say("back?", to=bob)

    assert delivery is not None
    assert delivery.error is RoutingError.MAX_RETRANSMIT
    assert bob.wait_for("back", 5) is not None
    assert [heard.text for heard in bob.heard] == ["back?"]


def test_reactions_carry_the_message_they_are_about(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    ada.say("👍", to=radio, reply_to=9, emoji=1)

    packet = client.packet(lambda p: p.port == Port.TEXT)
    assert (packet.text, packet.reply_id, packet.emoji) == ("👍", 9, 1)


def test_old_radio_without_a_key_talks_openly(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio = mesh.add_radio()
    old = mesh.add_person("Old Timer", has_key=False)
    client = connect(radio)

    old.say("hello", to=radio)
    heard = client.packet(lambda p: p.port == Port.TEXT)
    client.send(Packet(to=old.num, id=1, payload=b"hi", want_ack=True, hop_limit=3))

    assert (heard.pki, heard.public_key) == (False, b"")
    refusal = client.packet(lambda p: p.request_id == 1)
    assert wire.parse_routing(refusal.payload) is RoutingError.PKI_SEND_FAIL_PUBLIC_KEY


def test_stranger_becomes_known_by_presenting_itself(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radio = mesh.add_radio()
    cleo = mesh.add_person("Cleo Example", introduced=False)
    assert set(radio.station.known) == {radio.num}
    client = connect(radio)

    cleo.send_user()
    client.packet(lambda p: p.port == Port.NODEINFO)
    cleo.send_position(1.0, 2.0, altitude=3)
    client.packet(lambda p: p.port == Port.POSITION)
    cleo.send_telemetry(battery=55)
    client.packet(lambda p: p.port == Port.TELEMETRY)

    known = radio.station.known[cleo.num]
    assert known == KnownNode(
        num=cleo.num,
        user=cleo.station.user,
        snr=6.0,
        last_heard=known.last_heard,
        hops_away=0,
        battery=55,
        latitude=1.0,
        longitude=2.0,
        altitude=3,
    )
    nodes = [v for kind, v in client.configure() if kind == "node_info" and v.num == cleo.num]
    assert [(n.user.long_name, n.device_metrics.battery_level) for n in nodes] == [
        ("Cleo Example", 55)
    ]


def test_beacons_repeat(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh(1000.0)
    radio, ada = mesh.add_radio(), mesh.add_person()
    client = connect(radio)

    ada.send_telemetry(temperature=21.5, humidity=40.0, every_s=30.0)

    packets = [client.packet(lambda p: p.port == Port.TELEMETRY) for _ in range(3)]
    assert len({packet.id for packet in packets}) == 3


def test_channel_text_is_heard_by_both_of_our_radios(make_mesh: MakeMesh, connect: Connect) -> None:
    mesh = make_mesh()
    radios = mesh.add_radio("Base Camp"), mesh.add_radio("Hill Top")
    ada = mesh.add_person()
    clients = [connect(radio) for radio in radios]

    packet_id = ada.say("librarian, hello")

    assert [client.packet().id for client in clients] == [packet_id, packet_id]


def test_airtime_passes_in_scaled_time() -> None:
    with SimMesh(clock=SystemClock(20.0)) as mesh:
        ada, bob = mesh.add_person("Ada Example"), mesh.add_person("Bob Example")
        ada.say("x" * 20, to=bob)

        assert bob.wait_for("x", 5) is not None
        sent = mesh.air.log.items()[0]
        arrived = bob.heard[0]

    took_s = arrived.at - sent.at
    assert sent.airtime_s == pytest.approx(airtime_s(20, "LONG_FAST", pki=True))
    assert sent.airtime_s - 0.1 <= took_s
    assert arrived.real_at - sent.real_at == pytest.approx(took_s / 20.0)


def test_same_seed_tells_the_same_story(make_mesh: MakeMesh) -> None:
    def losses(seed: int) -> list[int]:
        with SimMesh(seed=seed, clock=SystemClock(50.0), instant_air=True) as mesh:
            ada, bob = mesh.add_person("Ada Example"), mesh.add_person("Bob Example")
            mesh.link(ada, bob, loss=0.5, one_way=True)
            for number in range(30):
                ada.say("part", to=bob, packet_id=number + 1, want_ack=False)
            bob.say("the end", to=ada)
            assert ada.wait_for("the end", 5) is not None
            return [heard.packet_id for heard in bob.heard]

    first, again, other = losses(5), losses(5), losses(6)
    assert first == again
    assert first != other
    assert 5 < len(first) < 25


def test_unlinked_nodes_do_not_hear_each_other(make_mesh: MakeMesh) -> None:
    mesh = make_mesh()
    ada, bob = mesh.add_person("Ada Example"), mesh.add_person("Bob Example")
    mesh.unlink(ada, bob, one_way=True)

    ada.say("unheard")
    bob.say("heard")

    assert ada.wait_for("heard", 5) is not None
    assert bob.heard == ()


def test_mesh_leaves_no_thread_and_no_port_behind() -> None:
    before = set(threading.enumerate())
    mesh = SimMesh(clock=SystemClock(50.0)).start()
    radio = mesh.add_radio()
    with StreamClient(radio.address) as client:
        client.configure()

        mesh.close()
        mesh.close()

        assert client.read() is None
    with pytest.raises(ConnectionRefusedError):
        StreamClient(radio.address)
    assert "sim" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_mesh_that_never_started_can_be_closed() -> None:
    mesh = SimMesh()
    mesh.add_radio()
    mesh.close()


def test_mesh_can_be_closed_in_the_middle_of_starting() -> None:
    mesh = SimMesh()
    for _ in range(3):
        mesh.add_radio()
    mesh.start()
    for radio in mesh.radios:
        radio.reboot(down_s=0.0)
    mesh.close()


def test_bug_on_the_mesh_thread_comes_out_at_close() -> None:
    def fail() -> None:
        raise KeyError("bug")

    mesh = SimMesh().start()
    mesh.engine.loop.call_soon_threadsafe(fail)

    with pytest.raises(KeyError, match="bug"):
        mesh.close()


def test_wrong_mesh_settings_are_refused(make_mesh: MakeMesh) -> None:
    with pytest.raises(UserError, match="WARP: unknown"):
        SimMesh(preset="WARP")
    mesh = make_mesh()
    mesh.add_radio(num=5)
    with pytest.raises(UserError, match="already taken"):
        mesh.add_person(num=5)


SCRIPT = """
people:
  - name: Ada Example
    steps:
      - say: are you there?
        to: Bob Example
      - wait_for: ^yes
      - pause_s: 1
      - telemetry: {battery: 80}
      - position: {latitude: 1.0, longitude: 2.0}
      - radio: introduce
      - say: thanks
        channel: 0
  - name: Bob Example
    steps:
      - wait_for: there
        timeout_s: 600
      - say: yes, I am
        to: Ada Example
      - wait_for: nothing of the kind
        timeout_s: 5
links:
  - {a: Ada Example, b: Bob Example, delay_s: 0.5}
"""


def test_script_is_played_to_its_end_or_to_a_vain_wait(make_mesh: MakeMesh, tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    mesh = make_mesh()
    plays = apply(load(path), mesh)

    for play in plays:
        play.start()

    assert all(play.ended.wait_count(1, 10) for play in plays)
    assert [play.ended.items() for play in plays] == [
        ("done",),
        ("waited in vain for nothing of the kind",),
    ]
    ada, bob = mesh.people
    assert [heard.text for heard in ada.heard] == ["yes, I am"]
    assert bob.wait_for("thanks", 5) is not None


def test_every_problem_of_a_script_is_told(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("people: [{name: A, steps: [{say: x, pause_s: 1}, {shout: x}]}]\nlink: []\n")

    with pytest.raises(UserError) as caught:
        load(path)

    text = str(caught.value)
    assert all(part in text for part in ("steps.0", "exactly one of", "shout", "link:"))


@pytest.mark.parametrize("content", ["people: [", "people: [{name: A, steps: [{wait_for: '('}]}]"])
def test_unusable_script_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(content)

    with pytest.raises(UserError, match=r"script\.yaml"):
        load(path)


def test_script_with_an_unknown_name_is_refused(make_mesh: MakeMesh, tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("people: [{name: Ada, steps: [{say: hi, to: Nobody}]}]")

    with pytest.raises(UserError, match="Nobody"):
        apply(load(path), make_mesh())

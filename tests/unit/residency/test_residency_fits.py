"""The ways of loading a pair: their order, and that nothing is done silently."""

import math
from dataclasses import replace

from gemmad.core import ByteCount
from gemmad.memory.readings import HOST
from gemmad.residency.budgets import PLACES
from gemmad.residency.fits import Allowed, Scales, of_files, unusable, ways
from tests.fakes.machines import machine_of
from tests.fakes.residency_fakes import wanted

GIB = 1 << 30


def weigh(_wanted, setting):
    """A gibibyte, one for each 4096 tokens and slot, a quarter of one for the drafter."""
    per_slot = setting.num_ctx / 4096
    packed = 0.5 if setting.quantize else 1.0
    nbytes = int((packed + per_slot * setting.slots) * GIB)
    took = of_files(nbytes, GIB // 4, drafter=setting.drafter, unified=setting.unified)
    return took if setting.unified else replace(took, host=ByteCount(7))


SCALES = Scales(weigh)


def told(want, machine, **allowed):
    """(tier, rank, device, context, drafter, slots, packed) of every way."""
    return [
        (
            way.tier, way.rank, way.choice.device, way.choice.setting.num_ctx,
            way.choice.setting.drafter, way.choice.setting.slots, way.choice.setting.quantize,
        )
        for way in ways(want, machine, Allowed(**allowed), SCALES)
    ]  # fmt: skip


def test_the_context_is_given_up_first_then_the_drafter_then_slots():
    """Each with everything before it restored: the least is lost that will do."""
    found = told(wanted("a", 8192), machine_of(64 * GIB, 24 * GIB), slots=2)

    assert [way[3:6] for way in found] == [
        (8192, True, 2), (4096, True, 2), (2048, True, 2),
        (8192, False, 2), (4096, False, 2), (2048, False, 2),
        (8192, True, 1), (4096, True, 1), (2048, True, 1),
        (8192, False, 1), (4096, False, 1), (2048, False, 1),
    ]  # fmt: skip


def test_a_context_that_was_asked_for_is_not_made_smaller():
    """Who names num_ctx gets it, or an error."""
    found = told(wanted("a", 8192, exact=True), machine_of(64 * GIB, 24 * GIB))

    assert {way[3] for way in found} == {8192}


def test_weights_are_packed_only_where_the_user_allows_it():
    """And after everything else on a GPU; never when the request names weights."""
    machine = machine_of(64 * GIB, 24 * GIB)
    named = replace(wanted("a"), exact_weights=True)

    assert {way[6] for way in told(wanted("a"), machine)} == {None}
    assert {way[6] for way in told(named, machine, quantize="int4")} == {None}
    assert [way[6] for way in told(wanted("a"), machine, quantize="int4")][-1] == "int4"


def test_the_cpu_is_used_beside_a_gpu_only_where_the_user_allows_it():
    """Then last, and the way says so."""
    machine = machine_of(64 * GIB, 24 * GIB)
    last = list(ways(wanted("a"), machine, Allowed(cpu=True), SCALES))[-1]

    assert {way[2] for way in told(wanted("a"), machine)} == {"cuda:0"}
    assert last.choice.device == HOST
    assert "on the CPU, as the settings allow: no GPU has room" in last.choice.why


def test_a_machine_without_a_gpu_uses_its_cpu():
    """It is what there is; memory of the process and of the model are counted together."""
    first = next(ways(wanted("a"), machine_of(64 * GIB), Allowed(), SCALES))

    assert (first.choice.device, first.choice.why) == (HOST, "")
    assert first.takes == {HOST: 2 * GIB + GIB // 4, PLACES: 1}


def test_a_gpu_that_torch_cannot_use_is_named():
    """The CPU is used, and whoever looks learns why the GPU is not."""
    machine = machine_of(64 * GIB, 24 * GIB, note="PyTorch is installed without support")
    first = next(ways(wanted("a"), machine, Allowed(), SCALES))

    assert first.choice.device == HOST
    assert "without support" in first.choice.why


def test_a_lost_gpu_is_no_reason_for_the_cpu():
    """There is no way at all, and the note says why; but the user may allow the CPU."""
    machine = machine_of(64 * GIB, 24 * GIB, note="gpu lost: 999")

    assert list(ways(wanted("a"), machine, Allowed(), SCALES)) == []
    assert "gpu lost: 999" in unusable(machine, Allowed())
    allowed = next(ways(wanted("a"), machine, Allowed(cpu=True), SCALES))
    assert "gpu lost: 999" in allowed.choice.why


def test_what_is_given_up_is_said():
    """In the words that `ps` and the event show."""
    found = list(ways(wanted("a", 8192), machine_of(64 * GIB, 24 * GIB), Allowed(slots=2), SCALES))

    assert found[0].choice.why == ""
    assert found[1].choice.num_ctx_why == "memory has no room for 8192"
    assert found[-1].choice.why == (
        "a context of 2048 instead of 8192, without the drafter, until memory has room, "
        "1 requests at once instead of 2"
    )


def test_every_gpu_is_tried_in_each_rank():
    """The one with most free memory first; the host's part is counted beside the device's."""
    machine = machine_of(64 * GIB, 8 * GIB, 24 * GIB)
    first, second, *_ = ways(wanted("a"), machine, Allowed(), SCALES)

    assert (first.rank, second.rank) == (0, 0)
    assert [way.choice.device for way in (first, second)] == ["cuda:1", "cuda:0"]
    assert first.takes == {"cuda:1": 2 * GIB + GIB // 4, HOST: 7, PLACES: 1}


def test_a_drafter_that_is_left_out_is_known_by_its_size():
    """So that it can come back when there is room for it."""
    found = list(ways(wanted("a"), machine_of(64 * GIB, 24 * GIB), Allowed(), SCALES))

    assert found[-1].choice.drafter_takes == {"cuda:0": GIB // 4}
    assert not math.isclose(found[-1].takes["cuda:0"], found[0].takes["cuda:0"])

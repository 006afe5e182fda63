"""Frames between the daemon and a runner: a 4-byte big-endian length, then one JSON object.

    +----------------+---------------------------------------+
    | length  u32 be | {"type": "generate", "id": 7, ...}     |   length counts the JSON bytes only
    +----------------+---------------------------------------+

Daemon -> runner: prepare, load, generate, cancel, reclaim, detach, attach, measure, ping, shutdown.
Runner -> daemon: hello, prepared, progress, loaded, load_failed, delta, done, refused, reclaimed,
detached, attached, attach_failed, measured, pong.
A `generate` is answered by any number of `delta` and then exactly one `done` or `refused`.
A `prepare` may come once, before the `load`; its answer comes before the load's own frames, or not
at all when the preparation failed: the load then says why.
Unknown fields are ignored, an unknown type or a frame over MAX_FRAME_BYTES is a WireError.
"""

import struct
from typing import Literal

import msgspec

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")
PROTOCOL = 1

DraftMode = Literal["auto", "off"] | int
Quantize = Literal["int8", "int4"]


class WireError(Exception):
    """The peer sent bytes that are not a frame of this protocol."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen and when to stop; temperature 0 is greedy."""

    temperature: float = 1.0
    top_k: int = 64  # 0 = off
    top_p: float = 0.95  # 1 = off
    min_p: float = 0.0  # 0 = off
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64  # -1 = whole context, 0 = off
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    num_predict: int = -1  # -1 = until the model stops or the context is full


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call the model made, or one given back in the history."""

    name: str
    arguments: dict[str, object]
    id: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, as the chat template reads it."""

    role: str  # system | developer | user | assistant | tool
    content: str = ""
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str | None = None
    tool_call_id: str | None = None


class PairFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one pair: name in the repository -> path on disk (a blob, named by digest)."""

    target: dict[str, str]
    drafter: dict[str, str] | None = None
    projector: dict[str, str] | None = None
    adapter: dict[str, str] | None = None


# --- daemon -> runner ---


class Prepare(msgspec.Struct, frozen=True, tag="prepare", tag_field="type"):
    """Import all that a load needs, but load nothing; answered by prepared."""


class Load(msgspec.Struct, frozen=True, kw_only=True, tag="load", tag_field="type"):
    """Load a pair; sent once, before all requests. Answered by progress*, loaded or load_failed."""

    files: PairFiles
    num_ctx: int = 4096
    num_parallel: int = 1
    device: str = "auto"  # auto | cpu | cuda | mps
    dtype: str = "auto"  # auto | float32 | bfloat16
    threads: int = 0  # 0 = physical cores
    max_depth: int = 8
    depth_state: dict[str, object] | None = None  # what the depth controller learned before
    quantize: Quantize | None = None  # the target's big matrices, when the files hold them wider
    draft_quantize: Quantize | None = None  # the same for the drafter
    deterministic: bool = False  # no answer depends on what runs beside it, bit for bit
    prefix_bytes: int | None = None  # budget of kept prompts; None: the engine's own choice
    drafter: bool = True  # False: it is not loaded, though files name one; an attach may follow
    split: tuple[tuple[str, int], ...] = ()  # (device, layers); empty: all layers on `device`
    why: str = ""  # why it is loaded so; comes back in the placement, to be shown


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate", tag_field="type"):
    """Answer `messages` (rendered by the chat template), or continue `prompt` as it is."""

    id: int
    messages: tuple[Message, ...] = ()
    prompt: str | None = None  # raw text; only when messages is empty
    context: tuple[int, ...] = ()  # token ids put before the prompt (Ollama's `context`)
    tools: tuple[dict[str, object], ...] = ()
    think: bool = False
    sampling: Sampling = Sampling()
    draft: DraftMode = "auto"


class Cancel(msgspec.Struct, frozen=True, tag="cancel", tag_field="type"):
    """Stop request `id` within one round; it is answered by done(reason="cancel")."""

    id: int


class Reclaim(msgspec.Struct, frozen=True, tag="reclaim", tag_field="type"):
    """Give back up to `nbytes` of memory that no running answer needs; answered by reclaimed."""

    nbytes: int


class Detach(msgspec.Struct, frozen=True, tag="detach", tag_field="type"):
    """Free the drafter and all that only it needs; answered by detached.

    Running answers go on at depth 0 and say what they would have said.
    """


class Attach(msgspec.Struct, frozen=True, tag="attach", tag_field="type"):
    """Load the drafter of the load's files again, beside running answers, which may then draft.

    Answered by attached or attach_failed.
    """


class Measure(msgspec.Struct, frozen=True, tag="measure", tag_field="type"):
    """Say what is taken now; answered by measured."""


class Ping(msgspec.Struct, frozen=True, tag="ping", tag_field="type"):
    """Are you alive? Answered by pong also while a prompt is being read."""

    n: int


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown", tag_field="type"):
    """Exit 0 now; requests in flight are dropped."""


ToRunner = (
    Prepare | Load | Generate | Cancel | Reclaim | Detach | Attach | Measure | Ping | Shutdown
)

# --- runner -> daemon ---


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="type"):
    """First frame of a runner."""

    pid: int
    protocol: int = PROTOCOL


class Prepared(msgspec.Struct, frozen=True, tag="prepared", tag_field="type"):
    """All is imported; a load begins at once."""


class Progress(msgspec.Struct, frozen=True, tag="progress", tag_field="type"):
    """How far a load is; at least once a second."""

    phase: str  # import | target | drafter | kernels | warm
    done: int
    total: int


class Placed(msgspec.Struct, frozen=True):
    """Where a part of a pair is, and what it takes there."""

    what: str  # target | drafter | kv
    device: str
    nbytes: int
    why: str = ""


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag="loaded", tag_field="type"):
    """The pair is ready; what it took, in bytes and nanoseconds."""

    device: str
    dtype: str
    target_bytes: int
    drafter_bytes: int
    kv_bytes: int
    num_ctx: int
    load_ns: int
    drafter: bool
    drafter_note: str | None = None  # why there is no drafter although one was given
    kernels_s: float = 0.0  # of load_ns: building kernels
    warm_s: float = 0.0  # of load_ns: first runs, capturing graphs
    notes: tuple[str, ...] = ()  # e.g. which weights had to be unpacked, that an adapter is in
    placement: tuple[Placed, ...] = ()
    peak_bytes: int = 0  # most that the load took of the device; 0: not known


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag="load_failed", tag_field="type"):
    """The pair could not be loaded; the runner exits after this."""

    code: str  # an api.errors code
    message: str
    fix: str | None = None


class DraftStats(msgspec.Struct, frozen=True, kw_only=True):
    """What drafting did for one request."""

    depth: int  # depth of the last round; 0 = parked or off
    rounds: int
    drafted: int
    accepted: int
    per_position: tuple[
        float, ...
    ]  # share of rounds reaching position i whose draft there was accepted
    tokens_per_round: float


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag="delta", tag_field="type"):
    """The next piece of an answer; any of the three may be empty."""

    id: int
    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", tag_field="type"):
    """The answer is complete."""

    id: int
    reason: str  # stop | length | cancel
    prompt_tokens: int
    prompt_ns: int
    eval_tokens: int
    eval_ns: int
    draft: DraftStats
    positions: tuple[tuple[int, int], ...] = ()  # of draft i: rounds that reached it, accepted it
    context: tuple[int, ...] = ()  # prompt and answer ids
    depth_state: dict[str, object] | None = None


class RequestRefused(msgspec.Struct, frozen=True, kw_only=True, tag="refused", tag_field="type"):
    """The request could not be run; others are not affected."""

    id: int
    code: str  # an api.errors code
    message: str
    fix: str | None = None


class Reclaimed(msgspec.Struct, frozen=True, tag="reclaimed", tag_field="type"):
    """So many bytes were given back; 0 when there was nothing to give."""

    nbytes: int


class Detached(msgspec.Struct, frozen=True, tag="detached", tag_field="type"):
    """The drafter is gone and so many bytes are free; 0 when there was none."""

    nbytes: int


class Attached(msgspec.Struct, frozen=True, tag="attached", tag_field="type"):
    """The drafter is in memory and answers may be drafted."""

    drafter_bytes: int


class AttachFailed(
    msgspec.Struct, frozen=True, kw_only=True, tag="attach_failed", tag_field="type"
):
    """The target goes on alone."""

    code: str  # an api.errors code
    message: str
    fix: str | None = None


class DeviceTaken(msgspec.Struct, frozen=True):
    """What a runner takes of one of several devices."""

    device: str
    nbytes: int
    peak: int  # the most until now


class Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured", tag_field="type"):
    """What a runner takes now."""

    device_bytes: int  # of its devices; on a CPU and on unified memory 0, all is the host's
    host_bytes: int  # of the process alone; file pages that the system may drop are left out
    target_bytes: int
    drafter_bytes: int
    kv_bytes: int
    prefix_bytes: int
    peak_device_bytes: int  # the most until now
    devices: tuple[DeviceTaken, ...] = ()  # each, when layers are split over several


class Pong(msgspec.Struct, frozen=True, tag="pong", tag_field="type"):
    """The runner's main thread is alive."""

    n: int


FromRunner = (
    Hello
    | Prepared
    | Progress
    | Loaded
    | LoadFailed
    | Delta
    | Done
    | RequestRefused
    | Reclaimed
    | Detached
    | Attached
    | AttachFailed
    | Measured
    | Pong
)

_encoder = msgspec.json.Encoder()
_to_runner = msgspec.json.Decoder(ToRunner)
_from_runner = msgspec.json.Decoder(FromRunner)


def encode(message: ToRunner | FromRunner) -> bytes:
    """The frame that carries `message`.

    Raises:
        WireError: the message is larger than MAX_FRAME_BYTES.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decode_to_runner(body: bytes) -> ToRunner:
    """A frame's JSON as the runner reads it.

    Raises:
        WireError: not a message of this protocol.
    """
    try:
        message: ToRunner = _to_runner.decode(body)
    except msgspec.MsgspecError as error:
        raise WireError(f"bad frame from the daemon: {error}") from error
    return message


def decode_from_runner(body: bytes) -> FromRunner:
    """A frame's JSON as the daemon reads it.

    Raises:
        WireError: not a message of this protocol.
    """
    try:
        message: FromRunner = _from_runner.decode(body)
    except msgspec.MsgspecError as error:
        raise WireError(f"bad frame from the runner: {error}") from error
    return message


class FrameSplitter:
    """Turns a byte stream into frame bodies, whatever the chunking."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """Bodies completed by `data`, in order.

        Raises:
            WireError: a frame announces more than the limit.
        """
        self._buffer += data
        bodies, at = [], 0
        while (end := self._end_of_frame(at)) is not None:
            bodies.append(bytes(self._buffer[at + _LENGTH.size : end]))
            at = end
        del self._buffer[:at]
        return bodies

    def _end_of_frame(self, at: int) -> int | None:
        """Where the frame that begins at `at` ends; None while it is not whole."""
        begin = at + _LENGTH.size
        if len(self._buffer) < begin:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, at)
        if length > self._limit:
            raise WireError(f"frame announces {length} bytes, over the limit of {self._limit}")
        end = begin + int(length)
        return end if len(self._buffer) >= end else None

"""Plans of pulls, creations, new drafters and repairs, composed from fake places."""

import json
from dataclasses import replace

import msgspec
import pytest

from gemmad.api.errors import BadRequest, ModelNotFound, PairMismatch, StoreBroken, Unsupported
from gemmad.api.modelfile import parse
from gemmad.core import Manifest, ModelName, Origin, Turn
from gemmad.pulls.binding import manifest_of
from gemmad.recipes.places import Places, reference_of
from gemmad.recipes.recipes import Recipes
from gemmad.recipes.wish import Creation, Overlay, Wish
from gemmad.sources.half import Content, Stored
from gemmad.sources.reference import Reference
from tests.fakes.builtin_pair import CONFIG, DRAFTER_CONFIG
from tests.fakes.pull_scenes import FOUND, FakeSource, entry, half, in_hand, remote

TARGET = "hf.co/google/e4b"
DRAFTER = "hf.co/google/e4b-assistant"
OTHER = "hf.co/google/e2b-assistant"
SMALL = DRAFTER_CONFIG | {"backbone_hidden_size": 1536}
CATALOGUE = {
    "gemma4:e4b": f"FROM {TARGET}\nDRAFT {DRAFTER}\nPARAMETER top_k 64\nLICENSE Apache-2.0\n",
    "gemma4:plain": f"FROM {TARGET}\nDRAFT none\n",
    "gemma4:wrong": f"FROM {TARGET}\nDRAFT {OTHER}\n",
}


def config(value, kind="target"):
    return in_hand(json.dumps(value).encode(), kind)


class Scene:
    """A hub with a target and two drafters, a catalogue, and names that were bound before."""

    def __init__(self) -> None:
        drafter = half(DRAFTER, config(DRAFTER_CONFIG, "drafter"), revision="d" * 40)
        self.hub = FakeSource(
            {
                TARGET: half(TARGET, config(CONFIG), remote(b"w"), parameters={"temperature": 1}),
                DRAFTER: drafter,
                OTHER: half(OTHER, config(SMALL, "drafter"), revision="e" * 40),
            },
            siblings={TARGET: drafter},
        )
        self.names: dict[ModelName, Manifest] = {}
        self.recipes = Recipes(Places([self.hub], self.find, self))

    def find(self, name):
        text = CATALOGUE.get(str(name))
        return parse(text) if text else None

    def get(self, name):
        if name.key not in self.names:
            raise ModelNotFound(f"model '{name}' not found")
        return self.names[name.key]

    def all(self):
        return list(self.names.values())

    def pull(self, text, **wish):
        return self.recipes.pull(reference_of(text), Wish(**wish))

    def bind(self, name, plan):
        """The plan becomes a name of the store."""
        parsed = ModelName.parse(name)
        manifest = manifest_of(parsed, plan, FOUND, "", lambda _name, _value: True)
        self.names[parsed.key] = manifest
        return manifest


@pytest.fixture
def scene():
    return Scene()


def drafters(plan):
    return [plan.drafter_origin.source] if plan.drafter_origin else []


def test_a_name_of_the_catalogue_is_its_modelfile(scene):
    """FROM, DRAFT, parameters over the repository's own, licence."""
    plan = scene.pull("gemma4:e4b")

    assert (plan.origin.source, drafters(plan)) == (TARGET, [DRAFTER])
    assert plan.parameters == {"temperature": 1, "top_k": 64}
    assert (plan.licence, plan.reference, plan.draft) == ("Apache-2.0", "gemma4:e4b", "auto")


@pytest.mark.parametrize(("name", "draft", "found"), [
    ("gemma4:e4b", "none", []), ("gemma4:plain", None, []), ("gemma4:plain", DRAFTER, [DRAFTER]),
    (TARGET, None, [DRAFTER]), (TARGET, "none", []), (TARGET, DRAFTER, [DRAFTER]),
])  # fmt: skip
def test_the_drafter_follows_the_wish(scene, name, draft, found):
    """Refused, named, or looked for."""
    plan = scene.pull(name, draft=draft)

    assert drafters(plan) == found
    assert bool(plan.group("drafter")) == bool(found)


def test_a_named_drafter_that_misfits_is_refused_before_any_download(scene):
    """With both values."""
    with pytest.raises(PairMismatch, match="1536 in the drafter and 256 in the target"):
        scene.pull(TARGET, draft=OTHER)


def test_a_catalogues_drafter_that_misfits_is_left_out(scene):
    """The target alone, with a note."""
    plan = scene.pull("gemma4:wrong")

    assert drafters(plan) == []
    assert plan.notes[0].startswith("No drafter: ")
    assert "1536" in plan.notes[0]


def test_an_unknown_name_says_where_names_are(scene):
    """Before anything is asked."""
    with pytest.raises(ModelNotFound, match="list --available"):
        scene.pull("gemma5:e4b")
    assert scene.hub.asked == []


def test_an_earlier_wish_holds_until_another_is_said(scene):
    """A refused drafter stays refused, weights stay packed."""
    scene.bind(
        "gemma4:e4b", scene.pull("gemma4:e4b", draft="none", parameters={"quantize": "int8"})
    )
    again = scene.pull("gemma4:e4b")
    other = scene.pull("gemma4:e4b", draft="auto", parameters={"quantize": "int4"})

    assert (again.draft, drafters(again), again.parameters["quantize"]) == ("none", [], "int8")
    assert (other.draft, drafters(other), other.parameters["quantize"]) == (
        "auto", [DRAFTER], "int4",
    )  # fmt: skip


def test_a_pull_again_takes_the_new_commit(scene):
    """The name follows its branch; what is equal keeps its digest."""
    scene.bind("gemma4:e4b", scene.pull("gemma4:e4b"))
    scene.hub.halves[TARGET] = half(TARGET, config(CONFIG), remote(b"new"), revision="b" * 40)
    plan = scene.pull("gemma4:e4b")

    assert plan.origin.revision == "b" * 40
    assert plan.group("target")["model.safetensors"] == entry(b"new")


def test_a_creation_puts_its_words_over_the_base(scene):
    """Parameters by name, system, template and messages whole, a long licence as a file."""
    scene.bind("base", scene.pull("gemma4:e4b"))
    scene.hub.asked.clear()
    over = Overlay(
        {"top_k": 5}, "be kind", "{{ messages }}", "My terms\nof use", (Turn("user", "x"),)
    )
    plan = scene.recipes.create(Creation(base=Reference.parse("base"), overlay=over))
    files = {file.name: file for file in plan.files}

    assert plan.parameters == {"temperature": 1, "top_k": 5}
    assert (plan.system, plan.licence, plan.messages) == ("be kind", "My terms", over.messages)
    assert files["chat_template.jinja"].bytes == Content(b"{{ messages }}")
    assert files["LICENSE"].kind == "document"
    assert files["model.safetensors"].bytes == Stored()
    assert (drafters(plan), scene.hub.asked) == ([DRAFTER], [])


def test_a_created_name_is_pulled_again_with_its_words(scene):
    """The base is resolved anew; what was put over it stays."""
    scene.bind("gemma4:e4b", scene.pull("gemma4:e4b"))
    over = Overlay({"top_k": 5}, "be kind", template="{{ messages }}")
    made = scene.recipes.create(Creation(base=Reference.parse("gemma4:e4b"), overlay=over))
    scene.bind("mine", made)
    scene.hub.halves[TARGET] = half(TARGET, config(CONFIG), remote(b"new"), revision="b" * 40)
    plan = scene.pull("mine")

    assert plan.group("target")["model.safetensors"] == entry(b"new")
    assert plan.group("target")["chat_template.jinja"] == entry(b"{{ messages }}")
    assert (plan.system, plan.parameters["top_k"]) == ("be kind", 5)
    assert plan.reference == "gemma4:e4b"


def test_a_creation_of_a_name_that_is_not_here_pulls_it(scene):
    """As one step; a path is not kept as a reference."""
    plan = scene.recipes.create(Creation(base=Reference.parse("gemma4:e4b"), draft="none"))

    assert (plan.origin.source, plan.draft, drafters(plan)) == (TARGET, "none", [])
    assert plan.reference == "gemma4:e4b"


@pytest.mark.parametrize(("draft", "found"), [(None, [DRAFTER]), ("none", []), ("base", [DRAFTER])])
def test_a_creation_of_a_stored_pair_keeps_or_drops_its_drafter(scene, draft, found):
    """`DRAFT name` means that name's drafter."""
    scene.bind("base", scene.pull("gemma4:e4b"))
    plan = scene.recipes.create(Creation(base=Reference.parse("base"), draft=draft))

    assert drafters(plan) == found


def test_uploaded_files_become_a_pair(scene):
    """By their names; a name that is no model's file is refused."""
    files = {"config.json": entry(b"{}"), "model.safetensors": entry(b"w")}
    plan = scene.recipes.create(
        Creation(files=files, draft_files={"mtp.gguf": entry(b"d")}, adapter_files={})
    )

    assert plan.group("target") == files
    assert plan.group("drafter") == {"mtp.gguf": entry(b"d")}
    with pytest.raises(BadRequest, match=r"evil\.py"):
        scene.recipes.create(Creation(files={"evil.py": entry(b"x")}))


def test_an_adapter_is_a_group_of_its_own(scene):
    """Beside target and drafter."""
    scene.bind("base", scene.pull("gemma4:e4b"))
    lora = {"adapter_config.json": entry(b"{}"), "adapter_model.safetensors": entry(b"l")}
    plan = scene.recipes.create(Creation(base=Reference.parse("base"), adapter_files=lora))
    made = scene.bind("tuned", plan)
    again = scene.recipes.create(
        Creation(base=Reference.parse("base"), adapter=Reference.parse("tuned"))
    )

    assert made.adapter == lora
    assert again.group("adapter") == lora


def test_a_drafter_is_attached_to_a_stored_pair(scene):
    """The target's files are not touched; an old note is gone."""
    plain = scene.bind("mine", scene.pull(TARGET, draft="none"))
    noted = msgspec.structs.replace(plain, notes=("No drafter: x", "Other"))
    plan = scene.recipes.draft(noted, DRAFTER)

    assert (drafters(plan), plan.draft, plan.notes) == ([DRAFTER], DRAFTER, ("Other",))
    assert {file.name: file.bytes for file in plan.files}["model.safetensors"] == Stored()
    with pytest.raises(Unsupported, match="no drafter"):
        scene.recipes.draft(noted, "mine")


def test_a_repair_asks_for_the_same_commits(scene):
    """Where the files came from, at the manifest's revisions; what is unknown stays as stored."""
    manifest = scene.bind("gemma4:e4b", scene.pull("gemma4:e4b"))
    scene.hub.halves = {
        f"{TARGET}@{'a' * 40}": scene.hub.halves[TARGET],
        f"{DRAFTER}@{'d' * 40}": scene.hub.halves[DRAFTER],
    }
    plan = scene.recipes.repair(manifest)

    assert plan.manifest is manifest
    assert {file.entry for file in plan.files} == set(manifest.files)
    assert not any(isinstance(file.bytes, Stored) for file in plan.files)
    lost = msgspec.structs.replace(manifest, origin=Origin("files", "1"), drafter_origin=None)
    assert all(isinstance(file.bytes, Stored) for file in scene.recipes.repair(lost).files)


def test_a_pinned_commit_that_is_stored_is_not_asked_for(scene):
    """A Modelfile with commits makes its pair without a network."""
    scene.bind("gemma4:e4b", scene.pull("gemma4:e4b"))
    scene.hub.asked.clear()
    base = Reference.parse(f"{TARGET}@{'a' * 40}")
    plan = scene.recipes.create(Creation(base=base, draft=f"{DRAFTER}@{'d' * 40}"))

    assert scene.hub.asked == []
    assert drafters(plan) == [DRAFTER]
    assert all(isinstance(file.bytes, Stored) for file in plan.files)


def test_a_name_of_uploaded_files_cannot_be_pulled(scene):
    """There is no place to ask; the message says what to do."""
    made = scene.recipes.create(Creation(files={"m.gguf": entry(b"g")}))
    scene.bind("mine", made)

    with pytest.raises(BadRequest, match="gemma create"):
        scene.pull("mine")


def test_a_broken_name_does_not_hinder_its_pull(scene, monkeypatch):
    """What cannot be read has no wishes."""

    def broken(_name):
        raise StoreBroken("x")

    monkeypatch.setattr(scene, "get", broken)
    recipes = Recipes(Places([scene.hub], scene.find, scene))

    assert recipes.pull(Reference.parse("gemma4:e4b"), Wish()).draft == "auto"


def test_a_repository_named_latest_is_its_default(scene):
    """`gemma list` shows `hf.co/o/r:latest`; pulling that name is pulling the repository."""
    assert reference_of(f"{TARGET}:latest") == replace(Reference.parse(TARGET), variant=None)

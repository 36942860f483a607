"""Output names: valid everywhere, inside the folder, whatever the text."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from revithion_stems.errors import OutputError, RequestError
from revithion_stems.paths import MAX_COMPONENT_BYTES, UNTITLED, jailed, render_template, safe_component

# Everything Python can hold, surrogates of undecodable file names included, with the dangerous characters made likely.
HOSTILE = st.text(
    st.one_of(st.characters(exclude_categories=()), st.sampled_from("./\\-~: \n\t\0\"'<>|?*{}$`;&\u202e")), max_size=300
)
PLAIN = st.text(st.sampled_from("abcXYZ019_ é中🎵"), min_size=1, max_size=40).map(str.strip).filter(bool)
needs_symlinks = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


def assert_safe(name: str) -> None:
    assert name
    assert len(name.encode("utf-8")) <= MAX_COMPONENT_BYTES
    assert not any(c in '<>:"/\\|?*' or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert name == name.strip()
    assert name[0] not in ".-"
    assert name[-1] != "."
    assert unicodedata.is_normalized("NFC", name)
    assert PurePosixPath(name).parts == PureWindowsPath(name).parts == (name,)
    if sys.version_info < (3, 13):  # deprecated from there on
        assert not PureWindowsPath(name).is_reserved()


@settings(max_examples=300)
@given(text=HOSTILE)
@example("CON" + " " * 300 + "x")
@example("NUL." + "x" * 300)
@example("e\u0301" * 200)
def test_any_text_becomes_one_safe_component_and_stays_it(text):
    name = safe_component(text)
    assert_safe(name)
    assert safe_component(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Sóley – Björk", "Sóley – Björk"),
        ("米津玄師 - 感電", "米津玄師 - 感電"),
        ("love 👩‍🎤 song", "love 👩‍🎤 song"),
        ("e\u0301", "é"),
        ("AC/DC", "AC_DC"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("-rf", "rf"),
        (".hidden", "hidden"),
        ("a\nb\tc\0d", "a_b_c_d"),
        ("What? *Now*: <1|2>", "What_ _Now__ _1_2_"),
        ("song.", "song"),
        ("  song  ", "song"),
        ("con", "_con"),
        ("Aux.wav", "_Aux.wav"),
        ("NUL .txt", "_NUL .txt"),
        ("COM¹", "_COM¹"),
        ("console", "console"),
        ("song\u202egpj.exe", "song_gpj.exe"),
        ("bad\udcffbyte", "bad_byte"),
        ("", UNTITLED),
        ("...", UNTITLED),
        (" - ", UNTITLED),
        ("x" * 300, "x" * 200),
        ("中" * 300, "中" * 66),
        ("x" * 199 + "🎵", "x" * 199),
    ],
)
def test_safe_component_examples(text, name):
    assert safe_component(text) == name


@given(text=PLAIN)
def test_plain_names_come_back_as_they_are(text):
    plain = unicodedata.normalize("NFC", text)
    assert safe_component(text) == plain
    assert render_template("{track}/{stem}.{ext}", {"track": text, "stem": "vocals", "ext": "wav"}) == PurePosixPath(
        plain, "vocals.wav"
    )


@settings(max_examples=300)
@given(track=HOSTILE, stem=HOSTILE, template=st.sampled_from(["{track}/{stem}.{ext}", "x/{track} - {stem}.{ext}"]))
def test_no_value_adds_or_leaves_a_folder(tmp_path_factory, track, stem, template):
    path = render_template(template, {"track": track, "stem": stem, "ext": "wav"})
    assert not path.is_absolute()
    assert len(path.parts) == 2
    assert path.suffix == ".wav"
    for component in path.parts:
        assert_safe(component)
    root = tmp_path_factory.getbasetemp().resolve()
    assert jailed(root, path) == root.joinpath(*path.parts)


@settings(max_examples=300)
@given(template=HOSTILE)
def test_any_template_is_refused_or_gives_safe_components(template):
    try:
        path = render_template(template, {"a": "b"})
    except RequestError:
        return
    assert path.parts
    for component in path.parts:
        assert_safe(component)


def test_long_values_give_way_to_the_template_and_the_extension():
    path = render_template("{track}_{stem}.{ext}", {"track": "中" * 200, "stem": "vocals", "ext": "wav"})
    assert path.name.endswith("_vocals.wav")
    assert MAX_COMPONENT_BYTES - 3 <= len(path.name.encode()) <= MAX_COMPONENT_BYTES
    both = render_template("{a}{b}.wav", {"a": "🎵" * 50, "b": "🥁" * 50})
    assert both.name.startswith("🎵")
    assert both.name.endswith("🥁.wav")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{stem}", "v"),
        ("{{{stem}}}", "{v}"),
        ("a/b/{stem}", "a/b/v"),
        ("{track}{stem}", "tv"),
        ("fixed.wav", "fixed.wav"),
        (".{stem}", "v"),
        ("{track}..{stem}", "t..v"),
    ],
)
def test_template_examples(template, expected):
    assert str(render_template(template, {"stem": "v", "track": "t"})) == expected


@pytest.mark.parametrize(
    "template",
    [
        *["", "/", "/{stem}", "{stem}/", "a//{stem}", "..", "../{stem}", "a/../{stem}", "./{stem}"],
        *["{", "}", "{stem", "{}", "{0}", "{nope}", "{stem.__class__}", "{stem[0]}", "{stem!r}", "{stem:>9}"],
        *["C:/{stem}", "a\\{stem}", "a\n{stem}", "a\0{stem}", "x" * 201 + "{stem}", "{stem:{track}}"],
    ],
)
def test_unusable_templates_are_refused(template):
    with pytest.raises(RequestError) as caught:
        render_template(template, {"stem": "vocals", "track": "t"})
    assert caught.value.code == "request.template"
    assert "{track}/{stem}" in caught.value.hint


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(RequestError, match=r"\{nope\} must be one of \{stem\}, \{track\}"):
        render_template("{nope}", {"track": "t", "stem": "s"})


def test_jailed_takes_paths_inside(tmp_path):
    assert jailed(tmp_path / "new", PurePosixPath("a/b.wav")) == tmp_path.resolve() / "new" / "a" / "b.wav"


@pytest.mark.parametrize("relative", ["..", "../x", "a/../../x", "/etc/passwd", ".", "a/..", "nul\0byte"])
def test_jailed_refuses_what_leaves(tmp_path, relative):
    root = tmp_path / "out"
    root.mkdir()
    with pytest.raises(OutputError) as caught:
        jailed(root, PurePosixPath(relative))
    assert caught.value.code == "output.outside"


@needs_symlinks
def test_jailed_follows_links(tmp_path):
    root = tmp_path / "out"
    (root / "inside").mkdir(parents=True)
    (root / "good").symlink_to(root / "inside")
    (root / "evil").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    assert jailed(root, PurePosixPath("good/x")) == root.resolve() / "inside" / "x"
    with pytest.raises(OutputError, match="would be"):
        jailed(root, PurePosixPath("evil/x"))
    if sys.version_info < (3, 13):
        with pytest.raises(OutputError, match="can't be resolved"):
            jailed(root, PurePosixPath("loop/x"))


@needs_symlinks
def test_a_root_that_is_a_link_is_itself_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert jailed(tmp_path / "link", PurePosixPath("x")) == Path(tmp_path / "real" / "x").resolve()

"""The documents say what the program does: their examples run, their tables, names and links are right."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile

from program import docs_script
from revithion_bridge.messages import ERRORS, MESSAGES
from revithion_stems import events
from revithion_stems.catalog import load_catalog
from revithion_stems.cli.main import cli
from revithion_stems.comparison import Comparison
from revithion_stems.config import model_dir, state_dir
from revithion_stems.planning import SeparationPlan
from revithion_stems.weights import ModelStore, Presence

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"))
    if not path.relative_to(ROOT).parts[0].startswith(".")
)
RATE = 44_100


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- the examples of SKILL.md ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    language: str
    code: str
    line: int
    model: str | None  # whose real weights it needs


def examples(text: str) -> Iterator[Example]:
    """Blocks fenced as bash or python; ``<!-- needs weights: NAME -->`` stands right before the ones that need them."""
    fence = re.compile(
        r"^(?:<!-- needs weights: (?P<model>\w+) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
    )
    for match in fence.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Example(language=match["language"], code=match["code"], line=line, model=match["model"])


EXAMPLES = list(examples(read("SKILL.md")))


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    """A folder with a song of three seconds: a tone, a beat and a low note, on the 16-bit grid."""
    time = np.arange(3 * RATE) / RATE
    tone, low = np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 55 * time)
    beat = np.random.default_rng(1).uniform(-1, 1, time.size) * np.exp(-30 * (time % 0.5))
    song = np.stack([0.2 * tone + 0.2 * low + 0.3 * beat, 0.2 * tone + 0.2 * low + 0.25 * beat], axis=1)
    soundfile.write(tmp_path / "song.wav", song, RATE, subtype="PCM_16")
    return tmp_path


def run_example(example: Example, folder: Path, models: Path) -> None:
    home = folder / ".home"
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("REVITHION_")},
        "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""),
        "REVITHION_MODEL_DIR": str(models),
        "REVITHION_CONFIG": str(home / "none.toml"),
        "REVITHION_STATE_DIR": str(home / "state"),
        "REVITHION_CACHE_DIR": str(home / "cache"),
    }
    if example.language == "bash":
        bash = shutil.which("bash")
        if bash is None or shutil.which("revithion-stems", path=env["PATH"]) is None:
            pytest.skip("needs bash, and the command on the PATH")
        command = [bash, "-euo", "pipefail", "-c", example.code]
    else:
        command = [sys.executable, "-W", "error", "-c", example.code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"SKILL.md line {example.line}: {done.stdout}{done.stderr}"


def name_of(example: Example) -> str:
    return f"{example.language}-{example.line}"


def test_every_example_is_found() -> None:
    fences = re.findall(r"^```\w+$", read("SKILL.md"), re.M)
    assert len(fences) == len(EXAMPLES) >= 8
    assert len(re.findall("<!-- needs weights", read("SKILL.md"))) == sum(e.model is not None for e in EXAMPLES)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.model is None], ids=name_of)
def test_examples_without_weights(example: Example, studio: Path) -> None:
    run_example(example, studio, studio / ".home" / "models")


@pytest.mark.weights
@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.model is not None], ids=name_of)
def test_examples_with_weights(example: Example, studio: Path) -> None:
    assert example.model is not None
    store = ModelStore()
    if store.presence(store.catalog[example.model]) is not Presence.PRESENT:
        store.pull(store.catalog[example.model], events=events.EventStream("docs"), cancel=events.CancelToken())
    run_example(example, studio, model_dir())


def test_the_skill_has_its_front_matter() -> None:
    match = re.match(r"---\nname: ([a-z0-9-]{1,64})\ndescription: (.{1,1024})\n---\n", read("SKILL.md"))
    assert match is not None
    assert match[1] == "revithion-stems"


def test_the_python_example_of_the_readme_runs(studio: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", read("README.md"), re.M | re.S)
    code = block.replace('"htdemucs"', '"dsp"')
    assert code != block
    run_example(Example(language="python", code=code, line=0, model=None), studio, studio / ".home" / "models")


def test_the_readme_has_the_two_blocks_that_others_extract() -> None:
    for marker, must in (("try", "revithion-stems separate"), ("tests", "python -m pytest")):
        (block,) = re.findall(rf"^<!-- {marker} -->\n```bash\n(.*?)^```$", read("README.md"), re.M | re.S)
        assert must in block
        bash = shutil.which("bash")
        if bash is not None:
            subprocess.run([bash, "-n", "-c", block], check=True)
    assert len(re.findall(r"^```bash$", read("README.md"), re.M)) == 2


# --- tables from the catalog ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "SKILL.md", "docs/models.md"])
def test_models_tables_are_those_of_the_catalog(name: str) -> None:
    script = docs_script("make_models_table")
    text = read(name)
    assert text == script.with_tables(text, script.FILES[name]), "run `python docs/make_models_table.py`"


def test_published_figures_in_words() -> None:
    (quality,) = load_catalog()["htdemucs_ft"].quality
    words = "vocals {vocals:.2f}, drums {drums:.2f}, bass {bass:.2f}, other {other:.2f}, **mean {mean:.2f}** dB"
    assert words.format(**quality.sdr_db) in " ".join(read("SKILL.md").split())


def test_levels_of_verification() -> None:
    files = [(spec.name, file) for spec in load_catalog().models for net in spec.networks for file in net.files]
    by_hub = {name for name, file in files if file.hub_digest}
    by_prefix = {name for name, file in files if file.sha256_prefix}
    row = next(line for line in read("docs/models.md").splitlines() if line.startswith("| hub digest |"))
    assert set(re.findall(r"`(\w+)`", row)) == by_hub
    assert ("no file at present" in read("docs/models.md")) == (not by_prefix)


# --- names of things ------------------------------------------------------------------------------------------------


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


def section(text: str, title: str) -> str:
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", text, re.M | re.S)
    assert match is not None, f"no section {title!r}"
    return match[2]


def test_every_option_is_described_where_its_command_is() -> None:
    text = read("docs/cli.md")
    for name, command in commands(cli):
        described = section(text, name)
        options = [option for param in command.params if isinstance(param, click.Option) for option in param.opts]
        for option in options:
            if name == "plan" and not option.startswith("--"):
                continue  # it points to `separate` for what they mean
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", described), f"{name}: {option}"
        named = set(re.findall(r"`(--[a-z][a-z-]*)", "\n".join(re.findall(r"^\| `-.*", described, re.M))))
        every = [param for _, other in commands(cli) for param in other.params]
        known = {*options, *(o for p in every for o in (*p.opts, *p.secondary_opts))}
        assert named <= known, f"{name}: {named - known}"


def test_defaults_and_choices_are_described() -> None:
    described = section(read("docs/cli.md"), "separate")
    command = dict(commands(cli))["separate"]
    for param in command.params:
        row = next((line for line in described.splitlines() if param.opts[-1] in line and line.startswith("| `-")), "")
        if isinstance(param.type, click.Choice):
            for choice in param.type.choices:
                assert f"`{choice}`" in row, f"{param.opts[-1]}: {choice}"
        if isinstance(param.default, (str, int, float)) and not isinstance(param.default, bool):
            assert f"`{param.default}`" in row, f"{param.opts[-1]}: {param.default}"


def test_settings_that_are_not_called_like_their_option() -> None:
    different = {
        (param.opts[-1], param.name)
        for _, command in commands(cli)
        for param in command.params
        if isinstance(param, click.Option) and param.name not in (param.opts[-1].lstrip("-").replace("-", "_"), "help")
    }
    text = " ".join(section(read("docs/cli.md"), "Files").split())
    assert set(re.findall(r"`(--[a-z-]+)` \(`(\w+)`\)", text)) == different


def fields(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_fields_of_events() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section(read("docs/cli.md"), "JSON events"), re.M))
    kinds = {kind.__name__: kind for kind in events.JobEvent.__args__}
    assert set(rows) == set(kinds)
    for name, row in rows.items():
        missing = {f for f in fields(kinds[name]) - {"job_id", "seq"} if f"`{f}`" not in row}
        assert not missing, f"{name}: {missing}"
    states = {f"`{state.value}`" for state in events.JobState}
    assert states <= set(re.findall(r"`\w+`", rows["JobChanged"]))


def test_fields_of_plans_and_comparisons() -> None:
    cells = re.findall(r"^\| (`.*?) \| ", section(read("docs/cli.md"), "plan"), re.M)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == fields(SeparationPlan) | {"warnings", "notices"}
    assert {f for f in fields(Comparison) if f"`{f}`" not in section(read("docs/cli.md"), "compare")} == set()


SOURCES = "\n".join(
    p.read_text(encoding="utf-8")
    for room in ("revithion_stems", "realtime")
    for p in sorted((ROOT / room).rglob("*.py"))
)


def test_no_page_names_an_error_code_that_does_not_exist() -> None:
    families = "request|compare|stems|job|config|catalog|input|model|output|engine|daw|midi"
    dotted = rf"(?:{families}|path|protocol|auth|events|live|daemon|worker)\.[a-z_]+"
    known = set(re.findall(rf'"({dotted})"', SOURCES))
    built = tuple(f"{family}." for family in re.findall(r'code=f"(\w+)\.\{', SOURCES))  # such as request.{field}
    known |= {c for c in re.findall(r"^\| `([a-z._]+)`", read("docs/exit-codes.md"), re.M) if c.startswith(built)}
    known |= {*ERRORS, *(spec.name for spec in MESSAGES)}  # requests to the daemon are called like that too
    known |= {f"request.{name}" for name in re.findall(r'_(?:one_of|in_range)\("(\w+)"', SOURCES)}
    known |= {".".join(path.with_suffix("").parts[-2:]) for path in (ROOT / "bridge").rglob("*.py")}  # or modules are
    for page in PAGES:
        for code in re.findall(rf"[`\"]({dotted})[`\"]", page.read_text(encoding="utf-8")):
            assert code in known or code.endswith((".toml", ".log", ".py", ".lua")), f"{page.relative_to(ROOT)}: {code}"
    notices = set(re.findall(r'notice\(\s*"([a-z_.]+)"', SOURCES))
    text = section(read("docs/cli.md"), "JSON events")
    listed = set(re.findall(r"`([a-z]+\.[a-z_]+)`", text[text.index("Codes of notices") :].split("\n\n")[0]))
    assert listed == notices


def test_environment_variables() -> None:
    used = set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', SOURCES))
    assert len(used) >= 5
    described = section(read("docs/cli.md"), "Environment")
    for name in used:
        assert f"`{name}`" in described, name
    for page in PAGES:
        named = set(re.findall(r"\bREVITHION_[A-Z_]+\b(?!<)", page.read_text(encoding="utf-8")))
        assert {n for n in named - used if not n.startswith(("REVITHION_SEPARATE_", "REVITHION_MODELS_"))} <= {
            "REVITHION_"
        }, page


def test_folders_are_named_by_their_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "m"))
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "s"))
    assert (model_dir(), state_dir()) == (tmp_path / "m", tmp_path / "s")


def test_exit_statuses_of_both_pages_agree() -> None:
    def statuses(name: str, title: str) -> set[str]:
        return set(re.findall(r"^\| (\d+) \|", section(read(name), title), re.M))

    assert statuses("docs/cli.md", "Exit status") == statuses("docs/exit-codes.md", "Exit statuses")


# --- links and pictures ---------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """Anchors of the headings, made as code forges do: lower case, punctuation dropped, spaces to hyphens."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", plain, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


def test_pages_that_are_named_in_words_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"\b(?:docs|benchmarks)/[\w./-]+\.(?:md|svg)\b", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_picture_refers_to_nothing_outside_itself() -> None:
    text = read("docs/terminal.svg")
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert set(re.findall(r"(?:https?:)?//[^\s\"')]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@font-face" not in text
    assert "/tmp" not in text


def test_the_changelog_has_this_version() -> None:
    version = re.search(r'^version = "(.+)"$', read("pyproject.toml"), re.M)
    assert version is not None
    assert f"## [{version[1]}]" in read("CHANGELOG.md")

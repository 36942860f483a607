"""The package as others see it: its public names, what importing it costs, and who may know whom."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import revithion_stems

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(revithion_stems.__path__, "revithion_stems.") if module.name
)

PUBLIC = [
    "TRANSITIONS",
    "AudioBuffer",
    "BitDepth",
    "CancelToken",
    "Cancelled",
    "Catalog",
    "ConfigError",
    "Container",
    "ContentStore",
    "DownloadError",
    "EngineError",
    "InputError",
    "Job",
    "JobEvent",
    "JobState",
    "Manifest",
    "ModelError",
    "ModelSpec",
    "ModelStore",
    "OtherMethod",
    "OutputError",
    "OutputFormat",
    "OutputOptions",
    "RequestError",
    "ResidualPolicy",
    "RevithionError",
    "SeparationReport",
    "SeparationRequest",
    "StemSet",
    "__version__",
    "load_catalog",
    "read_audio",
    "separate",
    "separate_to_files",
]
DATA = {"TRANSITIONS", "JobEvent", "__version__"}


def test_the_public_names_are_these():
    """A change here is a change for everybody who uses the package."""
    assert sorted(revithion_stems.__all__) == sorted(PUBLIC)
    assert dir(revithion_stems) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(revithion_stems, name)
    if name not in DATA:
        assert inspect.getdoc(value)
        assert value.__name__ == name


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'seperate'"):
        revithion_stems.seperate  # noqa: B018 — looking it up is the test


def test_type_checkers_see_the_same_names():
    """They don't run ``__getattr__``: the imports under TYPE_CHECKING must list all of it."""
    tree = ast.parse(Path(revithion_stems.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("revithion_stems")
        for alias in node.names
    }
    assert imported == set(PUBLIC)


HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "scipy", "soundfile", "soxr", "demucs", "click", "rich", "httpx")


def loaded_after(statement: str) -> list[str]:
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import revithion_stems") == []


def test_importing_the_api_loads_no_inference_engine():
    loaded = loaded_after("from revithion_stems import separate, separate_to_files, load_catalog, ModelStore")
    assert not {"torch", "onnxruntime", "onnx", "demucs", "click", "rich"} & set(loaded)


def test_separating_without_weights_loads_no_inference_engine():
    loaded = loaded_after(
        "import numpy as np\n"
        "from revithion_stems import AudioBuffer, separate\n"
        "separate(AudioBuffer(samples=np.zeros((2, 100), np.float32), sample_rate=44100), model='dsp')"
    )
    assert not {"torch", "onnxruntime", "onnx", "demucs", "click", "rich"} & set(loaded)


def public_definitions(tree: ast.AST, prefix: str = ""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_public_name_has_a_docstring(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), name
    for public, node in public_definitions(tree):
        assert ast.get_docstring(node), f"{name}: {public}"


@pytest.mark.parametrize("name", MODULES)
def test_library_code_never_prints_or_exits(name):
    """Only the command line does."""
    if ".cli" in name or name.endswith("__main__"):
        pytest.skip("this is the command line")
    tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.exit", "exit", "os._exit", "os.fork"), f"{name}:{node.lineno}: {called}"


# What only POSIX has, and where a guard stands before it.
POSIX_ONLY = ("os.fork", "os.geteuid", "os.getuid", "os.mkfifo", "os.killpg", "signal.SIGKILL", "signal.SIGHUP",
              "signal.alarm", "signal.pthread_kill", "os.uname", "os.statvfs")  # fmt: skip
POSIX_MODULES = {"fcntl", "pwd", "grp", "pty", "termios", "resource", "tty"}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_used_that_windows_lacks(name):
    tree = ast.parse(Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in POSIX_ONLY, f"{name}:{node.lineno}"
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & POSIX_MODULES, f"{name}:{node.lineno}"


def test_the_layers_hold():
    command = "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout

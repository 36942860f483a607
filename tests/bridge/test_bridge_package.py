"""The package of the bridge as others see it: its public names, what importing it costs, and its modules' docs."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import revithion_bridge

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(module.name for module in pkgutil.walk_packages(revithion_bridge.__path__, "revithion_bridge."))
PUBLIC = ["AsyncClient", "Client", "DawSession", "connect", "connect_async", "connect_daw"]
WORKER = ("revithion_bridge.worker", "revithion_bridge.worker_output")
HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "scipy", "soundfile", "soxr", "demucs", "zmq", "pythonosc", "click")


def source(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def tree_of(name: str) -> ast.Module:
    return ast.parse(source(name).read_text(encoding="utf-8"))


def test_the_public_names_are_these() -> None:
    """A change here is a change for everybody who uses the package."""
    assert sorted(revithion_bridge.__all__) == PUBLIC
    assert dir(revithion_bridge) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(revithion_bridge, name)
    assert inspect.getdoc(value)
    assert value.__name__ == name


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        revithion_bridge.conect  # noqa: B018 — looking it up is the test


def test_type_checkers_see_the_same_names() -> None:
    """They don't run ``__getattr__``: the imports under TYPE_CHECKING must list all of it."""
    imported = {
        alias.name
        for node in ast.walk(tree_of("revithion_bridge"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("revithion_bridge")
        for alias in node.names
    }
    assert imported == set(PUBLIC)


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import revithion_bridge") == set()


def test_importing_the_table_loads_nothing_heavy() -> None:
    assert loaded_after("import revithion_bridge.messages, revithion_bridge.codec") == set()


def test_importing_a_client_loads_no_audio() -> None:
    assert loaded_after("from revithion_bridge import connect, connect_async, Client, AsyncClient") <= {"zmq"}


def test_importing_the_daemon_loads_no_inference_engine() -> None:
    assert not loaded_after("import revithion_bridge.daemon") & {"torch", "onnxruntime", "onnx", "demucs"}


def public_definitions(tree: ast.AST, prefix: str = ""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if "overload" in map(ast.unparse, node.decorator_list):
                continue  # a form of the one that follows
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_public_name_has_a_docstring(name: str) -> None:
    tree = tree_of(name)
    assert ast.get_docstring(tree), name
    for public, node in public_definitions(tree):
        assert ast.get_docstring(node), f"{name}: {public}"


def is_main_part(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


@pytest.mark.parametrize("name", MODULES)
def test_library_code_never_prints_or_exits(name: str) -> None:
    """Only the command line does, and the worker, which is a process of its own."""
    if ".cli" in name or name in WORKER:
        pytest.skip("this is a program")
    tree = tree_of(name)
    tree.body = [node for node in tree.body if not is_main_part(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "sys.exit", "exit", "os._exit", "os.fork"), f"{name}:{node.lineno}: {called}"


# What only POSIX has; a line that uses it stands behind a guard, or says why it needs none.
POSIX_ONLY = {
    *("os.fork", "os.geteuid", "os.getuid", "os.mkfifo", "os.killpg", "os.setsid", "os.getpgid", "os.fchmod"),
    *("os.uname", "os.statvfs", "signal.SIGKILL", "signal.SIGHUP", "signal.alarm", "signal.pthread_kill"),
}
POSIX_MODULES = {"fcntl", "pwd", "grp", "pty", "termios", "resource", "tty"}
GUARD = re.compile(r"sys\.platform|os\.name|hasattr\((?:os|signal), ")


def guarded(tree: ast.AST) -> set[ast.AST]:
    """Nodes below an ``if`` or a conditional expression that asks for the system, or in a function that did so."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp) and GUARD.search(ast.unparse(node.test)):
            found |= set(ast.walk(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            asked = [n for n in node.body if isinstance(n, ast.If) and GUARD.search(ast.unparse(n.test))]
            if asked and any(isinstance(last, ast.Return | ast.Raise) for n in asked for last in n.body[-1:]):
                found |= set(ast.walk(node))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_used_that_windows_lacks(name: str) -> None:
    tree = tree_of(name)
    safe = guarded(tree)
    for node in ast.walk(tree):
        if node in safe:
            continue
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in POSIX_ONLY, f"{name}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & POSIX_MODULES, f"{name}:{node.lineno}"


def test_the_guard_is_seen_and_its_absence_too() -> None:
    def unguarded(code: str) -> bool:
        tree = ast.parse(code)
        return any(
            isinstance(n, ast.Attribute) and ast.unparse(n) in POSIX_ONLY for n in set(ast.walk(tree)) - guarded(tree)
        )

    assert unguarded("os.killpg(1, 2)")
    assert not unguarded("if sys.platform != 'win32':\n    os.killpg(1, 2)")
    assert not unguarded("def f():\n    if os.name == 'nt':\n        return\n    os.killpg(1, 2)")


def test_the_readme_lists_every_module() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "bridge" / "README.md").read_text(encoding="utf-8"), re.M)
    listed = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    present = {name.removeprefix("revithion_bridge.") for name in MODULES} - {"cli"}
    assert listed == present

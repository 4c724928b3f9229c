"""The shape of the house: who may know whom, what things are called, what is complete."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAYERS = ("blocks", "flows", "deployments")
COMPOSITES = ("demo",)
UPKEEP = ("redeliver", "sweep")  # they look after runs, and have no settings of their own
CONFIGURED = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYED = {e["name"]: e["entrypoint"] for e in CONFIGURED["deployments"]}
KINDS = sorted(
    {*DEPLOYED, *(p.stem for p in (ROOT / "flows").glob("[a-z]*.py"))} - {*COMPOSITES, *UPKEEP}
)

# The files that every kind has, and what it says in those that all share.
OWN = (
    "blocks/{kind}.py",
    "flows/{kind}.py",
    "docs/{kind}.md",
    "tests/blocks/test_{kind}.py",
    "tests/flows/test_{kind}.py",
)
SHARED = {
    "blocks/__init__.py": '"{config}": "blocks.{kind}",',
    "prefect.yaml": "entrypoint: flows.{kind}.{kind}_job",
    "deployments/blocks.example.toml": "[{kind}-config.",
    "README.md": "](docs/{kind}.md) | `flows/{kind}.py` | `{config}` | `{kind}-job/{kind}` |",
    "tests/blocks/test_schemas.py": '"{config}": "{kind}-config",',
    "tests/flows/test_dry_run.py": '"flows.{kind}.{kind}_job": {{',
    "CHANGELOG.md": "{kind}",
}

# Who may import whom; everybody may import himself.
ALLOWED = {"blocks": set(), "flows": {"blocks"}, "deployments": {"blocks"}}

# Programs run by path or by name as a child: nothing may import them, and they import little.
MODULES = sorted(
    path
    for layer in LAYERS
    for path in (ROOT / layer).rglob("*.py")
    if "examples" not in path.parts
)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> list[tuple[str, int]]:
    """Every module a file imports, with its line; `if TYPE_CHECKING:` counts too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_point_down(path):
    layer = path.relative_to(ROOT).parts[0]
    for name, line in imports(path):
        top = name.split(".")[0]
        if top in LAYERS and top != layer:
            assert top in ALLOWED[layer], f"{path}:{line} {layer} must not import {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("[a-z]*.py")), ids=ids)
def test_job_files_do_not_import_each_other(path):
    if path.stem in COMPOSITES:
        return
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] == "flows" and len(parts) > 1:
            public = not parts[1].startswith("_") and (ROOT / "flows" / f"{parts[1]}.py").exists()
            assert not public, f"{path}:{line} imports the job file {name}"


@pytest.mark.parametrize("layer", ["blocks", "flows"])
def test_no_file_hides_a_library(layer):
    # The file form of an entrypoint puts flows/ first on sys.path: its file names are global names.
    elsewhere = [p for p in sys.path if p and Path(p).resolve() != ROOT]
    for path in (ROOT / layer).glob("[a-z]*.py"):
        found = importlib.machinery.PathFinder.find_spec(path.stem, elsewhere)
        assert found is None, f"{path} hides {found.origin}"
        assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("[a-z]*.py")), ids=ids)
def test_every_flow_has_its_hooks_and_the_guard(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        assert not any(d == "task" or d.startswith("task(") for d in decorators), f"{node.name}"
        if any(d == "flow" or d.startswith("flow(") for d in decorators):
            assert "**flow_hooks()" in decorators[0], f"{path}: {node.name} has no hooks"
            assert decorators[1].startswith("guard"), f"{path}: {node.name} has no guard"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_complete(kind):
    names = {"kind": kind, "config": f"{kind.capitalize()}Config"}
    missing = [p for name in OWN if not (ROOT / (p := name.format(**names))).is_file()]
    for name, pattern in SHARED.items():
        wanted = pattern.format(**names)
        if wanted.lower() not in (ROOT / name).read_text().lower():
            missing.append(f"{name}: {wanted}")
    assert not missing, "\n".join(["forgotten:", *missing])


@pytest.mark.parametrize("name", DEPLOYED)
def test_every_deployed_flow_can_be_run_dry(name):
    module, _, function = DEPLOYED[name].rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    (flow,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    taken = dict(zip([a.arg for a in flow.args.args][::-1], flow.args.defaults[::-1], strict=False))
    assert "dry_run" in taken, f"{DEPLOYED[name]} has no parameter dry_run"
    assert ast.unparse(taken["dry_run"]) == "False"


def test_every_composite_has_one_deployment_of_its_name():
    alone = (*COMPOSITES, *UPKEEP)
    assert {DEPLOYED.get(name) for name in alone} == {f"flows.{n}.{n}" for n in alone}


@pytest.mark.parametrize("name", UPKEEP)
def test_upkeep_is_tested_told_and_tells_nobody(name):
    (entry,) = (e for e in CONFIGURED["deployments"] if e["name"] == name)
    assert "penstock-quiet" in entry["tags"]
    for path in (f"tests/flows/test_{name}.py", f"docs/{name}.md"):
        assert (ROOT / path).is_file()
    assert f"](docs/{name}.md) | `flows/{name}.py` |" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("blocks", {"prefect", "pyspark", "papermill", "cwltool"}),
        ("blocks._all", {"pyspark", "papermill", "cwltool", "boto3"}),
        ("flows", {"prefect"}),
        ("flows._reports.hooks", {"pyspark", "papermill", "cwltool"}),
        ("flows.cwl", {"cwltool"}),
        ("flows.notebook", {"papermill", "nbconvert"}),
        ("flows._notebook.execute", {"prefect"}),
        ("deployments.cli", {"prefect", "httpx", "rich"}),
    ],
)
def test_importing_pulls_in_nothing_heavy(module, never):
    code = f"import sys, {module}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    assert not never & set(out)


def test_the_shim_needs_the_standard_library_alone():
    for name in ("shim.py", "tether.py", "procfs.py"):
        for module, _ in imports(ROOT / "flows" / "_run" / name):
            own = module.startswith("flows._run.procfs.")
            assert own or module.split(".")[0] in sys.stdlib_module_names


TESTS = [ROOT / "tests" / "conftest.py", *sorted((ROOT / "tests").rglob("test_*.py"))]


def test_tests_mirror_the_three_folders():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in TESTS}
    assert folders == {".", *LAYERS}
    assert not list((ROOT / "tests").rglob("__init__.py")), "a test is no module of a package"


@pytest.mark.parametrize("path", TESTS, ids=ids)
def test_a_test_that_sleeps_says_why_on_that_line(path):
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("sleep"):
            line = text.splitlines()[node.lineno - 1]
            assert "  # " in line, f"{path}:{node.lineno} {line.strip()}"

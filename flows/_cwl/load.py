"""Load a CWL document and its inputs with cwltool; every fault is a ConfigError."""

import os
import sys
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from cwltool import job as cwltool_job
from cwltool.context import LoadingContext, RuntimeContext
from cwltool.errors import WorkflowException
from cwltool.load_tool import jobloaderctx, load_tool
from cwltool.main import init_job_order
from cwltool.process import Process, shortname
from cwltool.resolver import tool_resolver
from cwltool.stdfsaccess import StdFsAccess
from cwltool.utils import visit_class
from cwltool.workflow import default_make_tool
from schema_salad.exceptions import ValidationException
from schema_salad.ref_resolver import Loader, file_uri

from blocks.errors import ConfigError


def load(workflow: str, *, lint: bool = True) -> Process:
    """The validated process of a document; `file.cwl#id` picks one of a `$graph`.

    With `lint`, its JavaScript is looked at too, which takes a Node.
    """
    name, sign, part = workflow.partition("#")
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"workflow {workflow!r} is no file (looked from {Path.cwd()})")
    if not cwltool_job.__file__.endswith(".py"):
        raise ConfigError("this cwltool is compiled: install the pure one from PyPI")
    context = LoadingContext()
    context.construct_tool_object = default_make_tool
    context.resolver = tool_resolver
    context.relax_path_checks = True  # names with blanks, # and the like are good file names
    context.disable_js_validation = not lint
    context.skip_schemas = True  # ontologies would be fetched from the internet and not be used
    try:
        return load_tool(f"{path.resolve()}{sign}{part}", context)
    except (ValidationException, WorkflowException, ValueError) as error:
        raise ConfigError(f"{workflow} is no valid CWL: {error}") from None


def job_order(process: Process, inputs: dict[str, Any], *, base: Path) -> dict[str, Any]:
    """The input object, with paths resolved against `base`, defaults filled in, files checked."""
    known = {shortname(i["id"]) for i in process.tool["inputs"]}
    if unknown := sorted(set(inputs) - known - {"cwl:requirements"}):
        raise ConfigError(
            f"unknown input {', '.join(unknown)}; the document has {', '.join(sorted(known))}"
        )
    try:
        loader = Loader(jobloaderctx.copy())
        order: Any = loader.resolve_all(_commented(inputs), file_uri(str(base)) + "/")[0]
        visit_class(order, ("File", "Directory"), _present)
        return dict(init_job_order(order, Namespace(), process, loader, sys.stdout))
    except (ValidationException, WorkflowException, OSError) as error:
        raise ConfigError(f"the inputs do not fit the document: {error}") from None


def runtime_context(
    work: Path, output: Path, *, on_error: Literal["stop", "continue"]
) -> RuntimeContext:
    """How jobs run: every intermediate folder in `work`, results moved to `output`."""
    context = RuntimeContext()
    context.basedir = os.getcwd()
    context.outdir = str(output)
    # On one file system with `work`, so that handing a file on is a rename.
    context.tmpdir_prefix = str(work / "tmp-")
    context.tmp_outdir_prefix = str(work / "out-")
    context.on_error = on_error
    context.default_container = None  # the empty string would make each tool a container job
    context.use_container = False
    context.rm_tmpdir = False  # the whole of `work` goes at once, when the run has succeeded
    return context


def _commented(inputs: dict[str, Any]) -> Any:
    """`inputs` in the classes that cwltool's loader wants, which remember line numbers."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return CommentedMap({key: convert(item) for key, item in value.items()})
        if isinstance(value, list):
            return CommentedSeq([convert(item) for item in value])
        return deepcopy(value)

    return convert(inputs)


def _present(file: dict[str, Any]) -> None:
    location = file.get("location") or file.get("path")
    if location and not StdFsAccess("").exists(location):
        raise ConfigError(f"the input file {location} does not exist")

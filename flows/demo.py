"""The main line in one flow: Spark, then a notebook, then a CWL workflow, on real flights.

submit_spark ──► Parquet tables ──► run_notebook ──► report
                        └─────────► cwl_job ──► compressed parts, checksums, counts
"""

from pathlib import Path
from typing import Any

from prefect import flow

from blocks._home import output_folder as default_folder
from flows import flow_hooks, guard
from flows._run.guard import current
from flows.cwl import cwl_job
from flows.notebook import run_notebook
from flows.spark import submit_spark

FLIGHTS = Path(__file__).parent / "examples" / "flights"


@flow(**flow_hooks())
@guard(parts=3)
def demo(
    output_folder: str | None = None,
    top: int = 15,
    spark: str = "default",
    notebook: str = "default",
    cwl: str = "default",
) -> dict[str, Any]:
    """Delays of the flights that left New York in 2013: computed, drawn, packed.

    `top` is how many routes the report shows; `spark`, `notebook` and `cwl` name the blocks used.
    Returns the CWL output object.
    """
    folder = Path(output_folder).resolve() if output_folder else default_folder(current().root)
    tables = folder / "tables"
    submit_spark(str(FLIGHTS / "delays.py"), [str(tables)], spark)
    run_notebook(
        str(FLIGHTS / "report.ipynb"),
        {"tables": str(tables), "top": top},
        output=str(folder),
        config=notebook,
    )
    files = [{"class": "File", "path": str(path)} for path in sorted(tables.rglob("*.parquet"))]
    return cwl_job(
        str(FLIGHTS / "results.cwl"),
        {"files": files},
        output_folder=str(folder / "results"),
        config=cwl,
    )

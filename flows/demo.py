"""The main line in one flow: Spark, then a notebook, then a CWL workflow, on real flights.

submit_spark ──► Parquet tables ──► run_notebook ──► report
                        └─────────► cwl_job ──► compressed parts, checksums, counts
"""

from pathlib import Path
from typing import Any

from prefect import flow

from blocks import CwlConfig, NotebookConfig, SparkConfig
from blocks._home import output_place, private
from flows import flow_hooks, guard
from flows._plan import show
from flows._run.guard import current
from flows.cwl import cwl_job, plan_cwl
from flows.notebook import plan_notebook, run_notebook
from flows.spark import plan_spark, submit_spark

FLIGHTS = Path(__file__).parent / "examples" / "flights"


@flow(**flow_hooks())
@guard(parts=3)
def demo(
    output_folder: str | None = None,
    top: int = 15,
    spark: str = "default",
    notebook: str = "default",
    cwl: str = "default",
    dry_run: bool = False,
) -> dict[str, Any]:
    """Delays of the flights that left New York in 2013: computed, drawn, packed.

    Args:
        output_folder: Where everything goes; the run's own if empty.
        top: How many routes the report shows.
        spark: Name of the SparkConfig block.
        notebook: Name of the NotebookConfig block.
        cwl: Name of the CwlConfig block.
        dry_run: Only show what would be run, and who would be told.
    """
    for kind, name in ((SparkConfig, spark), (NotebookConfig, notebook), (CwlConfig, cwl)):
        current().settings.get(kind, name)  # what is missing is told before anything is started
    folder = Path(output_folder).resolve() if output_folder else output_place(current().root)
    tables = folder / "tables"
    delays = str(FLIGHTS / "delays.py"), [str(tables)], spark
    report = str(FLIGHTS / "report.ipynb"), {"tables": str(tables), "top": top}
    pack = str(FLIGHTS / "results.cwl")
    if dry_run:
        return show(
            plan_spark(*delays),
            plan_notebook(*report, output_folder=str(folder), config=notebook),
            *plan_cwl(pack, {"files": []}, cwl),
        )
    private(folder)
    submit_spark(*delays)
    run_notebook(*report, output_folder=str(folder), config=notebook)
    files = [{"class": "File", "path": str(path)} for path in sorted(tables.rglob("*.parquet"))]
    return cwl_job(pack, {"files": files}, output_folder=str(folder / "results"), config=cwl)

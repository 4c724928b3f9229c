"""A real spark-submit on the Java from PyPI: result, progress, arguments, failure."""

from pathlib import Path

import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from blocks import SparkConfig
from blocks.errors import ConfigError, JobFailed
from flows.spark import spark_job

PROGRAMS = Path(__file__).parent.parent / "programs"
APP = str(PROGRAMS / "small_spark.py")
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


@pytest.fixture
def config(api):
    conf = {"spark.my.conf": "a=b, c é", "spark.driver.extraJavaOptions": QUICK}
    SparkConfig(master="local[2]", conf=conf).save("small", overwrite=True, _sync=True)
    return "small"


def test_an_application_runs_with_its_arguments_and_reports(installation, api, config):
    args = ["1000", "--like=this one", "-x", "é"]
    state = spark_job(APP, args, config, return_state=True)
    result = state.result()
    assert result["count"] == 1000
    assert result["args"] == args
    assert result["conf"] == "a=b, c é"
    assert result["application_id"].startswith("local-")
    run_id = state.state_details.flow_run_id
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    shown = [a.data for a in api.read_artifacts(artifact_filter=mine) if a.task_run_id]
    assert shown == [100.0]
    assert not list((installation.home / "runs" / str(run_id)).glob("job-*")), "files were left"


@pytest.mark.full
def test_a_failing_application_shows_its_exit_code_and_last_lines(api, config):
    with pytest.raises(
        JobFailed, match=r"Spark application small_spark.py exited with 1"
    ) as failed:
        spark_job(APP, ["fail"], config)
    assert "asked to fail" in "\n".join(failed.value.tail)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"app": "no-such.py"}, "app 'no-such.py' is no file"),
        ({"config": "mine"}, "no SparkConfig block is called 'mine'"),
    ],
)
def test_bad_input_is_one_clear_error_and_starts_nothing(api, config, parameters, words):
    with pytest.raises(ConfigError, match=words):
        spark_job(**{"app": APP, "config": config, **parameters})

"""What a user gets wrong, or what his machine lacks: one clear message, and nothing is started."""

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import prefect
import pytest
from prefect.client.orchestration import SyncPrefectClient

from blocks import SparkConfig
from blocks.errors import ConfigError
from deployments.local.parameters import check_parameters
from deployments.local.server import check, checked_address

ROOT = Path(__file__).parent.parent.parent
APP = str(ROOT / "flows" / "examples" / "flights" / "delays.py")


def penstock(*words, home, inside="", **environment):
    """The command of a newcomer; `inside` is done first, in a mount namespace of its own."""
    command = [sys.executable, "-m", "deployments", *words]
    if inside:
        command = ["unshare", "-rmn", "sh", "-c", f'{inside} && exec "$0" "$@"', *command]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def only_line(done):
    (line,) = done.stderr.splitlines()
    return line


needs_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-rmn", "true"], check=False).returncode != 0,
    reason="needs user namespaces",
)


# Parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"ap": APP}, "spark takes no parameter 'ap' (did you mean 'app'?); it takes app, args"),
        ({}, "spark needs the parameter 'app' (string): add it, as in --parameters '{\"app\": …}'"),
        ({"app": 5}, "spark: the parameter 'app' is 5; it must be string"),
    ],
)
def test_parameters_that_do_not_fit_are_named_and_nothing_is_started(
    installation, parameters, said
):
    done = installation.command("run", "spark", "--parameters", json.dumps(parameters))
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert said in line
    assert done.out == "", "a run that is started is named at once"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"app": APP, "zzz": 1}, "spark takes no parameter 'zzz'; it takes app, args, config"),
        ({"app": APP, "args": "x"}, "'args' is \"x\"; it must be array of string or null"),
        ({"app": APP, "args": [1]}, "'args' is [1]; it must be array of string or null"),
        ({"app": APP, "config": None}, "spark: the parameter 'config' is null; it must be string"),
    ],
)
def test_a_misfit_names_the_parameter_its_value_and_what_is_wanted(api, parameters, said):
    deployment = api.read_deployment_by_name("spark-job/spark")
    with pytest.raises(ConfigError) as error:
        check_parameters(deployment, parameters)
    assert said in str(error.value)


def test_parameters_that_fit_pass(api):
    deployment = api.read_deployment_by_name("spark-job/spark")
    check_parameters(deployment, {"app": APP, "args": ["a"], "config": "default"})
    check_parameters(deployment, {"app": APP, "args": None})


@pytest.fixture
def java_homes(api, tmp_path):
    """Saved blocks whose java_home holds an old Java, and none."""
    old = tmp_path / "old"
    (old / "bin").mkdir(parents=True)
    (old / "bin" / "java").touch(mode=0o755)
    (old / "release").write_text('JAVA_VERSION="11.0.24"\n')
    SparkConfig(java_home=str(old)).save("old-java", overwrite=True, _sync=True)
    SparkConfig(java_home=str(tmp_path)).save("no-java", overwrite=True, _sync=True)
    return {"old": old, "none": tmp_path}


@pytest.mark.full
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"app": APP, "config": "nope"},
            "no SparkConfig block is called 'nope' (saved are: default",
        ),
        ({"app": "gone.py"}, f"app 'gone.py' is no file (looked from {ROOT})"),
        ({"app": APP, "config": "old-java"}, "{old} holds Java 11; Spark 4 needs Java 17"),
        ({"app": APP, "config": "no-java"}, "{none} holds no Java; Spark 4 needs Java 17"),
    ],
)
def test_a_run_with_bad_settings_fails_with_the_reason_as_its_last_line(
    installation, java_homes, parameters, said
):
    done = installation.run("spark", parameters)
    assert done.code == 1
    assert installation.last["state"] == "Failed"
    assert said.format(**java_homes) in done.out.splitlines()[-1]


# Servers -------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = penstock("up", "--port", str(port), home=tmp_path)
    assert done.returncode == 2
    assert f"port {port} is taken by another program: choose another --port" in only_line(done)


@pytest.fixture
def server_of(installation):
    """Gives an address of the session's server that says it is of the version asked for."""
    opened = []

    def serve(version, status=200):
        class Proxy(BaseHTTPRequestHandler):
            def do_GET(self):
                real = httpx.get(installation.api_url.removesuffix("/api") + self.path)
                body = json.dumps(version).encode() if "version" in self.path else real.content
                self.send_response(status if "version" in self.path else real.status_code)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                """Quiet."""

        opened.append(ThreadingHTTPServer(("127.0.0.1", 0), Proxy))
        threading.Thread(target=opened[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{opened[-1].server_port}/api"

    yield serve
    for server in opened:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("version", ["2.20.4", "3.7.9", "4.0.0"])
def test_a_server_of_a_version_that_cannot_work_is_refused(server_of, tmp_path, version):
    url = server_of(version)
    done = penstock("up", "--server", url, home=tmp_path)
    assert done.returncode == 2
    line = only_line(done)
    assert f"the server at {url} runs Prefect {version}" in line
    assert "Penstock needs 3.8 or newer of Prefect 3: upgrade the server" in line
    assert not (tmp_path / "services.json").exists()


@pytest.mark.parametrize("version", ["3.8.0", "3.99.1"])
def test_a_server_of_a_near_version_is_used_with_a_note(server_of, version):
    with SyncPrefectClient(server_of(version)) as client:
        said = check(client)
    assert said is not None
    assert f"the server runs Prefect {version}, this checkout has {prefect.__version__}" in said


def test_a_server_that_asks_who_we_are_is_answered_with_the_setting(server_of, tmp_path):
    url = server_of("", status=401)
    done = penstock("up", "--server", url, home=tmp_path)
    assert done.returncode == 2
    assert f"the server at {url} answers 401: set PREFECT_API_AUTH_STRING" in only_line(done)


@pytest.mark.parametrize("name", ["PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"])
def test_what_is_set_and_refused_is_named_and_never_shown(server_of, tmp_path, name):
    url = server_of("", status=401)
    done = penstock("up", "--server", url, home=tmp_path, **{name: "me:hush"})
    assert done.returncode == 2
    assert f"answers 401: it refuses the {name} that is set" in only_line(done)
    assert "hush" not in done.stdout + done.stderr


def test_a_server_of_our_version_is_used_without_a_word(api):
    assert check(api) is None


def test_what_answers_but_is_no_api_is_named(installation, tmp_path):
    page = installation.api_url.removesuffix("/api")  # answers everything with the UI's page
    done = penstock("up", "--server", page, home=tmp_path)
    assert done.returncode == 2
    assert f"what answers at {page} is no Prefect API" in only_line(done)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:4200", "--server '127.0.0.1:4200' is no address: write it as http://"),
        ("ftp://host/api", "--server 'ftp://host/api' is no address: write it as http://"),
        (
            "http://me:hush@host/api",
            "holds a password for host: put user:password into PREFECT_API",
        ),
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_a_password(tmp_path, url, said):
    done = penstock("up", "--server", url, home=tmp_path)
    assert done.returncode == 2
    assert said in only_line(done)
    assert "hush" not in done.stdout + done.stderr
    assert checked_address("https://host/prefix/api/") == "https://host/prefix/api"


@pytest.mark.parametrize("words", [("up",), ("run", "cwl")])
def test_a_server_that_nobody_answers_for_is_named_before_anything_starts(tmp_path, words):
    done = penstock(*words, "--server", "http://127.0.0.1:9/api", home=tmp_path)
    assert done.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api (ConnectError)" in only_line(done)
    assert not (tmp_path / "services.json").exists()


@needs_namespaces
def test_without_a_network_the_address_is_named(tmp_path):
    done = penstock(
        "run", "cwl", "--server", "http://prefect.example.org/api", home=tmp_path, inside="true"
    )
    assert done.returncode == 2
    line = only_line(done)
    assert "no Prefect server answers at http://prefect.example.org/api" in line
    assert "whether the network reaches it" in line


def test_a_server_that_is_gone_is_one_line(tmp_path):
    done = penstock("seed", home=tmp_path, PREFECT_API_URL="http://me:hush@127.0.0.1:9/api")
    assert done.returncode == 1
    assert "the Prefect server failed to answer (ConnectError)" in only_line(done)
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [("up",), ("down",), ("status",), ("run", "cwl")])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"server": {"pid": 1}}',
        '{"server": 4200}',
        '{"server": {"name": "server", "pid": "1", "created": 1.0, "url": ""}}',
    ],
)
def test_a_list_of_services_that_is_broken_is_named(tmp_path, words, text):
    (tmp_path / "services.json").write_text(text)
    done = penstock(*words, home=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path}/services.json does not tell what was started" in only_line(done)
    assert "remove it" in only_line(done)
    assert (tmp_path / "services.json").read_text() == text


# Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--file {file} cannot be read: No such file or directory"),
        ("[spark-config", "--file {file} is no TOML: "),
        ("[sparc-config.mine]", "{file}: no block type 'sparc-config'; known: "),
        ("[spark-config]\nmaster = 'yarn'", "{file}: spark-config needs a name for its block"),
        ("spark-config = 1", "{file}: spark-config needs a name for its block"),
        (
            "[spark-config.bad]\nexecutor_cores = 0",
            "{file}, [spark-config.bad]: executor_cores: Input should be greater than or equal",
        ),
        (
            "[signing-key.bad]\npem = 'hush-hush'\npath = 'x'",
            "{file}, [signing-key.bad]: ",
        ),
        (
            "[report-endpoint.bad]\nurl = 'http://h'\nsigning_key = '@sining-key/default'",
            "{file}, [report-endpoint.bad]: '@sining-key/default' names no block type",
        ),
        (
            "[report-endpoint.bad]\nurl = 'http://h'\nsigning_key = '@signing-key/nope'",
            "{file}, [report-endpoint.bad]: no SigningKey block is called 'nope'",
        ),
    ],
)
def test_a_file_of_blocks_that_cannot_be_is_named_with_the_block_and_the_field(
    installation, tmp_path, text, said
):
    file = tmp_path / "blocks.toml"
    if text is not None:
        file.write_text(text)
    url = installation.api_url
    done = penstock("seed", "--file", str(file), home=installation.home, PREFECT_API_URL=url)
    assert done.returncode == 2, done.stderr
    assert said.format(file=file) in done.stderr
    assert "hush-hush" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "make room" not in done.stderr


# Places --------------------------------------------------------------------------------------


@needs_namespaces
def test_a_disk_that_is_nearly_full_is_said_before_anything_starts(tmp_path):
    small = f"mount -t tmpfs -o size=8m small {tmp_path} && head -c 3M /dev/zero > {tmp_path}/fill"
    done = penstock("up", home=tmp_path / "home", inside=small)
    assert done.returncode == 2
    line = only_line(done)
    assert f"{tmp_path}/home has 5 MB of free disk, and Penstock needs 200 MB" in line
    assert "make room, or set PENSTOCK_HOME" in line


@needs_namespaces
def test_a_disk_without_any_room_is_named(tmp_path):
    full = f"mount -t tmpfs -o nr_inodes=1 full {tmp_path}"
    done = penstock("status", home=tmp_path / "home", inside=full)
    assert done.returncode == 1
    line = only_line(done)
    assert f"{tmp_path}/home: No space left on device" in line
    assert "set PENSTOCK_HOME to another folder" in line


@needs_namespaces
def test_output_that_finds_no_room_is_an_error_too(tmp_path):
    full = f"mount -t tmpfs -o size=4k full {tmp_path} && exec > {tmp_path}/script"
    done = penstock("completion", "bash", home=tmp_path, inside=full)
    assert done.returncode == 1
    assert "No space left on device" in only_line(done)


@needs_namespaces
@pytest.mark.parametrize("verb", ["up", "run", "status", "down"])
def test_a_checkout_that_cannot_be_written_is_named(tmp_path, verb):
    lock = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    done = penstock(verb, home=tmp_path / "home", inside=lock)
    assert done.returncode == 1
    line = only_line(done)
    assert f"{tmp_path}/home: Read-only file system" in line
    assert "set PENSTOCK_HOME to another folder" in line

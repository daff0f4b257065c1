"""The launch files: what they start, without a cluster."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import runs
import yaml

from configs import photos_prior
from mq_jax.devices.distributed import Cluster, find_cluster
from mq_jax.suites.schedule import Shard, find_shard

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
SHELL = sorted({*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")})
README = (runs.ROOT / "README.md").read_text()
SUITE_SBATCH = (LAUNCH / "suite.sbatch").read_text()


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_the_shell_files_are_well_formed(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


@pytest.mark.parametrize("name, count", [("slurm.sbatch", 10), ("suite.sbatch", 11)])
def test_sbatch_reads_all_its_lines(name, count):
    """It stops at the first line that is a command."""
    lines = (LAUNCH / name).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(directives) == count and max(directives) < first


def manifest(name="kubernetes.yaml"):
    return yaml.safe_load((LAUNCH / name).read_text())


def container_of(job_set):
    """The container of a pod."""
    (replicated,) = job_set["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    return container


def environment_of_pod(job_set, index):
    """As Kubernetes makes it, with the labels that JobSet gives to its pods."""
    (replicated,) = job_set["spec"]["replicatedJobs"]
    labels = {
        "jobset-name": job_set["metadata"]["name"],
        "replicatedjob-name": replicated["name"],
        "replicatedjob-replicas": str(replicated["replicas"]),
        "job-index": str(index),
    }
    environment = {"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    for variable in container_of(job_set)["env"]:
        if "value" in variable:
            value = re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], variable["value"])
        else:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            value = labels[
                re.fullmatch(r"metadata\.labels\['jobset\.sigs\.k8s\.io/(.+)'\]", path)[1]
            ]
        environment[variable["name"]] = value
    return environment


def test_the_pods_of_the_manifest_find_one_another():
    job_set = manifest()
    job_set["metadata"]["name"] = "mine"
    job_set["spec"]["replicatedJobs"][0]["replicas"] = 3
    places = [find_cluster(environment_of_pod(job_set, index)) for index in range(3)]
    # JobSet names a pod jobset-replicatedjob-job-pod, in the jobset's subdomain.
    assert places == [Cluster("mine-node-0-0.mine:29500", 3, index) for index in range(3)]


def test_a_pod_of_one_node_is_alone():
    job_set = manifest()
    job_set["spec"]["replicatedJobs"][0]["replicas"] = 1
    assert find_cluster(environment_of_pod(job_set, 0)) is None


@pytest.mark.parametrize(
    "name, number", [("kubernetes.yaml", "replicas:"), ("suite.yaml", "completions:")]
)
def test_everything_to_edit_stands_at_the_top_of_the_manifest(name, number):
    _, edited, rest = re.split(r"# -{4,}.*\n", (LAUNCH / name).read_text())
    assert set(re.findall(r"&(\w+)", edited)) == set(re.findall(r"\*(\w+)", rest))
    assert number in edited and number not in rest


def test_the_pods_of_a_suite_share_out_the_whole_and_end_alone():
    spec = manifest("suite.yaml")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    count = spec["completions"]
    for index in range(count):
        # An Indexed Job gives each of its pods this one.
        given = {"JOB_COMPLETION_INDEX": str(index)}
        environment = given | {each["name"]: each["value"] for each in container["env"]}
        assert find_shard("", environment) == Shard(index, count)
        assert find_cluster(environment) is None
    assert spec["completionMode"] == "Indexed" and spec["backoffLimitPerIndex"] > 0
    rules = spec["podFailurePolicy"]["rules"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    actions = {rule["onExitCodes"]["values"][0]: rule for rule in rules if "onExitCodes" in rule}
    assert {code: rule["action"] for code, rule in actions.items()} == {
        75: "Ignore",
        1: "FailIndex",
    }
    assert {rule["onExitCodes"]["containerName"] for rule in actions.values()} == {
        container["name"]
    }


def test_a_pod_starts_the_suite_that_the_readme_writes_into_its_manifest(tmp_path):
    commands = with_commands(tmp_path, _ECHO)
    (command,) = [line for line in README.splitlines() if "launch/suite.yaml" in line]
    written = yaml.safe_load(run_shell(["bash", "-c", command], commands).stdout)
    for job, started in ((manifest("suite.yaml"), False), (written, True)):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        given = {each["name"]: each["value"] for each in container["env"] if each["value"]}
        done = run_shell(container["command"], {**given, **commands, "ARGUMENTS": "-x"})
        assert done.returncode == (0 if started else 1)
        if not started:
            assert done.stderr.startswith("error: SUITE is empty; write configs/suites/")
    assert done.stdout.strip().split("|")[4:-1] == [
        *("-m", "mq_jax.main", "--mode=compare", "--suite=configs/suites/imagenet_paper.py"),
        *("--workdir=/shared/runs/imagenet_paper", "--interrupted_code=75", "-x"),
    ]


# A program that says how it was called.
_ECHO = """#!/usr/bin/env bash
said=$(printf '%s|' "${RANK:--}" "${LOCAL_RANK:--}" "${WORLD_SIZE:--}" \\
    "${CUDA_VISIBLE_DEVICES:--}" "$@")
echo "$said"
exit "${EXIT_CODE:-0}"
"""
_SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
"$@"
"""
_SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*"
"""
_SBATCH = """#!/usr/bin/env bash
SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=7 exec bash "$@"
"""
_KUBECTL = """#!/usr/bin/env bash
exec cat
"""
_CLUSTER = {"srun": _SRUN, "scontrol": _SCONTROL, "sbatch": _SBATCH, "kubectl": _KUBECTL}


def with_commands(tmp_path, python):
    """Variables under which the commands of a cluster are ours, and Python is this text."""
    for command, text in {**_CLUSTER, "python": python}.items():
        (tmp_path / command).write_text(text)
        (tmp_path / command).chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")}


def run_shell(arguments, environment, timeout=60):
    """What ends from the repository's root, its output kept."""
    return subprocess.run(
        *(arguments,),
        **{"capture_output": True, "text": True, "timeout": timeout},
        **{"cwd": runs.ROOT, "env": environment},
    )


def launched(tmp_path, name, *given, **environment):
    """The lines that the program prints, and the exit code."""
    given_too = {"CONFIG": "c.py", "WORKDIR": "w", **environment}
    commands = with_commands(tmp_path, _ECHO)
    done = run_shell(["bash", LAUNCH / name, *given], {**commands, **given_too})
    return sorted(done.stdout.splitlines()), done.returncode


PROGRAM = "-m|mq_jax.main|--config=c.py|--workdir=w|"


def test_one_process_trains_on_this_machine(tmp_path):
    lines, code = launched(tmp_path, "local.sh", "--config.seed=1", DATA="d e")
    assert (lines, code) == ([f"-|-|-|-|{PROGRAM}--config.data.dir=d e|--config.seed=1|"], 0)
    assert launched(tmp_path, "local.sh", EXIT_CODE="3")[1] == 3


def test_several_gpus_are_of_one_process_or_each_of_its_own(tmp_path):
    lines, code = launched(tmp_path, "multi_gpu.sh", "-x", GPUS="4,5")
    assert (lines, code) == ([f"-|-|-|4,5|{PROGRAM}-x|"], 0)
    lines, code = launched(tmp_path, "multi_gpu.sh", "-x", GPUS="4,5", PROCESSES="each")
    assert (lines, code) == ([f"{rank}|{rank}|2|4,5|{PROGRAM}-x|" for rank in range(2)], 0)
    assert launched(tmp_path, "multi_gpu.sh", PROCESSES="two")[1] == 1


@pytest.mark.parametrize(
    "code, restarts, again",
    [
        ("0", "0", False),
        ("1", "0", False),
        ("75", "0", True),
        ("137", "9", True),
        ("75", "10", False),
    ],
)
def test_slurm_queues_an_interrupted_run_again_and_no_other(tmp_path, code, restarts, again):
    lines, status = launched(
        *(tmp_path, "slurm.sbatch", "-x"),
        **{"EXIT_CODE": code, "SLURM_RESTART_COUNT": restarts, "RESTARTS": "10"},
        **{"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"},
    )
    assert f"-|-|-|-|{PROGRAM}--interrupted_code=75|-x|" in lines
    assert ("scontrol requeue 7" in lines) == again
    assert status == int(code)


@pytest.mark.parametrize("code, again", [("0", False), ("1", False), ("75", True)])
def test_a_job_of_a_suite_is_queued_again_where_it_was_interrupted(tmp_path, code, again):
    lines, status = launched(
        *(tmp_path, "suite.sbatch", "-x"),
        **{"SUITE": "configs/suites/s.py", "EXIT_CODE": code, "DATA": "d e"},
        **{"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_JOB_ID": "7"},
        **{"SLURM_ARRAY_TASK_ID": "2"},
    )
    words = "-m|mq_jax.main|--mode=compare|--suite=configs/suites/s.py|--workdir=w|"
    assert f"-|-|-|-|{words}--interrupted_code=75|--config.data.dir=d e|-x|" in lines
    assert ("scontrol requeue 7_2" in lines) == again and status == int(code)


@pytest.mark.parametrize("given, count", [({}, 4), ({"SHARDS": "8"}, 8)])
def test_a_task_that_is_submitted_again_alone_has_the_part_that_it_had(tmp_path, given, count):
    commands = with_commands(tmp_path, "#!/usr/bin/env bash\nenv\n")
    # sbatch --array=2
    array = dict.fromkeys(("ID", "MIN", "MAX"), "2") | {"COUNT": "1", "STEP": "1"}
    slurm = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    slurm |= {"SLURM_SUBMIT_DIR": str(tmp_path), "SUITE": "s.py"}
    done = run_shell(["bash", LAUNCH / "suite.sbatch"], {**commands, **slurm, **given})
    environment = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert find_shard("", environment) == Shard(2, count)
    (array,) = re.findall(r"^#SBATCH --array=0-(\d+)$", SUITE_SBATCH, re.MULTILINE)
    assert f"SHARDS=${{SHARDS:-{int(array) + 1}}} " in SUITE_SBATCH


def test_the_warning_of_the_end_reaches_a_suite(tmp_path):
    """SLURM tells the shell alone; the program saves, and its own exit code decides."""
    program = """#!/usr/bin/env bash
trap 'exit 75' TERM
kill -TERM $PPID
sleep 20 >/dev/null 2>&1 & wait
"""
    given = {"SUITE": "s.py", "SLURM_SUBMIT_DIR": str(tmp_path)}
    given |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    commands = with_commands(tmp_path, program)
    done = run_shell(["bash", LAUNCH / "suite.sbatch"], {**commands, **given}, timeout=15)
    assert done.returncode == 75 and "scontrol requeue 7_2" in done.stdout


@pytest.fixture
def quickstart(tmp_path):
    """The quick start in a folder where nothing is installed and the program only speaks."""
    (tmp_path / "launch").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(LAUNCH / "quickstart.sh", tmp_path / "launch")
    (tmp_path / "launch/setup.sh").write_text("")
    program = tmp_path / ".venv/bin/python"
    program.write_text('#!/bin/sh\nshift 2\necho "$@"\nexit $(cat "$0-code")\n')
    program.chmod(0o755)

    def run(*arguments, code=0):
        (program.parent / "python-code").write_text(str(code))
        done = run_shell(["bash", tmp_path / "launch/quickstart.sh", *arguments], None)
        return done.stdout.replace(f"{tmp_path}/", "").splitlines(), done.returncode

    return run


_FIRST_STAGE = "--config=configs/photos_mqvae.py --workdir=runs/photos"


def test_the_quick_start_trains_the_second_stage_where_it_is_asked_for(quickstart):
    assert quickstart() == ([_FIRST_STAGE], 0)
    lines, code = quickstart("--with-prior")
    assert code == 0 and lines == [
        f"{_FIRST_STAGE} --interrupted_code=75",
        "--config=configs/photos_prior.py --workdir=runs/photos-prior --config.tokens=runs/photos "
        "--interrupted_code=75",
        "--mode=sample --workdir=runs/photos-prior --count=36 --step=1000 --top_p=0.9",
    ]
    lines, code = quickstart("--with-prior", str(LAUNCH / "mine"))
    assert [f"--workdir={LAUNCH}/mine" in line for line in lines] == [True] * 3


def test_the_quick_start_draws_from_the_last_step():
    text = (LAUNCH / "quickstart.sh").read_text()
    (step,) = re.findall(r"--step=(\d+)", text)
    assert int(step) == photos_prior.get_config().train.steps


def test_a_stage_that_is_interrupted_ends_the_quick_start(quickstart):
    lines, code = quickstart("--with-prior", code=75)
    assert len(lines) == 1 and code == 75


@pytest.mark.parametrize("arguments", [["a", "b"], ["--prior"], ["--with-prior", "--x"]])
def test_the_quick_start_knows_its_arguments(arguments, quickstart):
    assert quickstart(*arguments) == ([], 2)


# The commands of the README.

LAUNCHED = ("local.sh", "multi_gpu.sh", "slurm.sbatch", "kubernetes.yaml")


def readme_command(name):
    """The line of the README that starts a launch file with a configuration."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    (command,) = [
        line for line in lines if f"launch/{name} " in f"{line} " and "CONFIG" in line.upper()
    ]
    return command


def run_readme_command(name, arguments, environment, timeout=60):
    """Runs the README's command with further arguments; what Kubernetes is given, as a pod does."""
    command = readme_command(name)
    if name != "kubernetes.yaml":
        command = f"{command} {shlex.join(arguments)}"
        return run_shell(["bash", "-c", command], environment, timeout)
    job_set = yaml.safe_load(run_shell(["bash", "-c", command], environment).stdout)
    job_set["spec"]["replicatedJobs"][0]["replicas"] = 1
    given = {**environment_of_pod(job_set, 0), "ARGUMENTS": " ".join(arguments)}
    given = {name: value for name, value in given.items() if value}
    return run_shell(container_of(job_set)["command"], given | environment, timeout)


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_launcher_without_a_configuration_asks_for_one_in_one_line(name, tmp_path):
    commands = with_commands(tmp_path, _ECHO)
    if name == "kubernetes.yaml":
        pod = environment_of_pod(manifest(), 0)
        done = run_shell(container_of(manifest())["command"], {**pod, **commands})
    else:
        commands["SLURM_SUBMIT_DIR"] = str(runs.ROOT)
        done = run_shell(["bash", LAUNCH / name], commands)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: CONFIG is ") and "configs/photos_mqvae.py" in line


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_command_of_the_readme_starts_one_configuration(name, tmp_path):
    done = run_readme_command(name, ["-x"], with_commands(tmp_path, _ECHO))
    (line,) = done.stdout.splitlines()
    started = line.split("|")[4:]
    assert started[:3] == ["-m", "mq_jax.main", "--config=configs/photos_mqvae.py"]
    assert started[3].startswith("--workdir=") and started[3].endswith("runs/photos_mqvae")
    assert started[-2] == "-x" and done.returncode == 0


def test_what_the_launchers_start_trains_on_eight_devices_with_its_own_evaluation_batch(tmp_path):
    tiny = [f"--config.{name}={value}" for name, value in runs.TINY.items() if name[:5] != "eval."]
    done = run_readme_command("local.sh", tiny, with_commands(tmp_path, _ECHO))
    config, _, *rest = done.stdout.strip().split("|")[6:-1]
    given = [config.replace("configs/", f"{runs.ROOT}/configs/"), *rest]
    outcome = runs.cli(f"--workdir={tmp_path / 'run'}", *given)
    assert outcome.code == 0, outcome.err
    assert runs.metrics(tmp_path / "run")[-1]["step"] == 12


# All that decides how batches meet devices stays the configuration's own.
SMALL = {
    **{name: value for name, value in runs.TINY.items() if "size" not in name},
    **{"codebook.size": 16, "train.steps": 2, "train.log_every": 1},
    **{"train.eval_every": 2, "train.checkpoint_every": 2},
}


def environment_of_devices(count, tmp_path):
    """A machine with virtual CPU devices, and the Python of this test on it."""
    python = f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} "$@"\n'
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("JAX_", "XLA_"))}
    return {
        **inherited,
        **with_commands(tmp_path, python),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "WORKDIR": str(tmp_path / "run"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("name", LAUNCHED)
def test_the_command_of_the_readme_trains_on_several_devices(name, count, tmp_path):
    small = [f"--config.{name}={str(value).replace(' ', '')}" for name, value in SMALL.items()]
    environment = environment_of_devices(count, tmp_path)
    done = run_readme_command(name, small, environment, timeout=600)
    assert done.returncode == 0, done.stderr
    assert runs.metrics(tmp_path / "run")[-1]["step"] == 2
    evaluate = [sys.executable, "-m", "mq_jax.main", "--mode=evaluate", "--metrics="]
    done = run_shell([*evaluate, f"--workdir={tmp_path}/run"], environment, timeout=600)
    assert done.returncode == 0 and "10 images" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8])
def test_the_quick_start_runs_on_several_devices(count, tmp_path):
    """In a copy of the repository, of which only the number of steps differs."""
    root = tmp_path / "repository"
    for name in ("configs", "launch", "mq_jax"):
        shutil.copytree(runs.ROOT / name, root / name)
    shutil.copy(runs.ROOT / "pyproject.toml", root)
    config = root / "configs" / "photos_mqvae.py"
    config.write_text(config.read_text().replace("train.steps = 800", "train.steps = 2"))
    (root / ".venv" / "bin").mkdir(parents=True)
    environment = environment_of_devices(count, tmp_path)
    (root / ".venv" / "bin" / "python").symlink_to(tmp_path / "python")
    # As launch/setup.sh leaves it: there is nothing to install.
    line = 'echo "dev $(cksum <pyproject.toml)" >.venv/mq_jax-installed'
    subprocess.run(["bash", "-c", line], cwd=root, check=True)
    (tmp_path / "nvidia-smi").write_text("#!/usr/bin/env bash\nexit 1\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = run_shell(
        ["bash", root / "launch" / "quickstart.sh", tmp_path / "run"], environment, 600
    )
    assert done.returncode == 0, done.stderr
    assert runs.metrics(tmp_path / "run")[-1]["step"] == 2

"""The launch files: what they start, without a cluster."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from mq_jax.devices.distributed import Cluster, find_cluster

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
SHELL = sorted({*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")})


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_the_shell_files_are_well_formed(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_sbatch_reads_all_its_lines():
    """It stops at the first line that is a command."""
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(directives) == 10 and max(directives) < first


def manifest():
    return yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())


def environment_of_pod(job_set, index):
    """As Kubernetes makes it, with the labels that JobSet gives to its pods."""
    (replicated,) = job_set["spec"]["replicatedJobs"]
    labels = {
        "jobset-name": job_set["metadata"]["name"],
        "replicatedjob-name": replicated["name"],
        "replicatedjob-replicas": str(replicated["replicas"]),
        "job-index": str(index),
    }
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    environment = {"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    for variable in container["env"]:
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


def test_everything_to_edit_stands_at_the_top_of_the_manifest():
    _, edited, rest = re.split(r"# -{4,}.*\n", (LAUNCH / "kubernetes.yaml").read_text())
    assert set(re.findall(r"&(\w+)", edited)) == set(re.findall(r"\*(\w+)", rest))
    assert "replicas:" in edited and "replicas:" not in rest


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


def launched(tmp_path, name, *given, **environment):
    """The lines that the program prints, and the exit code."""
    for command, text in (("python", _ECHO), ("srun", _SRUN), ("scontrol", _SCONTROL)):
        (tmp_path / command).write_text(text)
        (tmp_path / command).chmod(0o755)
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")}
    done = subprocess.run(
        ["bash", LAUNCH / name, *given],
        capture_output=True,
        text=True,
        timeout=60,
        env={**paths, "CONFIG": "c.py", "WORKDIR": "w", **environment},
    )
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

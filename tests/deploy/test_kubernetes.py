"""The Kubernetes files: valid by Kubernetes' own schemas, in keeping with each other, and what a pod does when told."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import sweetspot
from sweetspot.workers import drain, supervisor

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "secret.yaml")
VERSIONS = ("1.34", "1.37")
PLACEHOLDERS = {"ca.crt": "CERTIFICATE", "users": "ann:HASH"}

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text()))


def named(kind: str) -> dict[str, Document]:
    return {d["metadata"]["name"]: d for path in FILES for d in documents(path) if d["kind"] == kind}


def with_pods() -> dict[str, Document]:
    return {**named("Job"), **named("Deployment")}


def pod(document: Document) -> Document:
    found: Document = document["spec"]["template"]["spec"]
    return found


def container(document: Document) -> Document:
    (found,) = pod(document)["containers"]
    return found  # type: ignore[no-any-return]


EVERY = pytest.mark.parametrize("name", sorted(with_pods()))
JOBS = pytest.mark.parametrize("name", sorted(named("Job")))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_valid_by_the_published_schemas(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    (job,) = documents(FOLDER / "workers.yaml")
    job["spec"]["backoffLimitPerIndexes"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, VERSIONS[0], strict=True)


def test_what_there_is() -> None:
    assert set(with_pods()) == {"sweetspot-workers", "sweetspot-optimize", "sweetspot-dashboard"}
    for claim in named("PersistentVolumeClaim").values():
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_labels_select_the_pods_that_they_are_on() -> None:
    for deployment in named("Deployment").values():
        assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    labels = [tuple(d["spec"]["template"]["metadata"]["labels"].items()) for d in with_pods().values()]
    assert len(set(labels)) == len(labels)


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_committed() -> None:
    for secret in named("Secret").values():
        assert "data" not in secret
        for key, value in secret["stringData"].items():
            assert value == PLACEHOLDERS.get(key) or value.startswith("postgresql://sweetspot:PASSWORD@HOST/")
    assert not any(d["kind"] == "Secret" for path in FILES if path.suffix == ".yaml" for d in documents(path))
    ignored = (FOLDER.parents[1] / ".gitignore").read_text().splitlines()
    assert "deploy/kubernetes/secret.yaml" in ignored


@EVERY
def test_volumes_and_the_files_of_secrets_that_a_pod_names_exist(name: str) -> None:
    document = with_pods()[name]
    volumes = {volume["name"]: volume for volume in pod(document)["volumes"]}
    files: set[str] = set()
    for mount in container(document)["volumeMounts"]:
        volume = volumes.pop(mount["name"])
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in named("PersistentVolumeClaim")
        if secret := volume.get("secret"):
            assert mount["readOnly"]
            assert secret["defaultMode"] == 0o440
            files |= {f"{mount['mountPath']}/{key}" for key in named("Secret")[secret["secretName"]]["stringData"]}
    assert volumes == {}, "mounted nowhere"
    environment = {variable["name"]: variable["value"] for variable in container(document)["env"]}
    assert environment["SWEETSPOT_STORAGE_FILE"] in files
    (storage,) = (d["stringData"]["storage"] for d in named("Secret").values() if "storage" in d["stringData"])
    assert storage.partition("sslrootcert=")[2] in files
    arguments = container(document)["args"]
    if "--auth-file" in arguments:
        assert arguments[arguments.index("--auth-file") + 1] in files
    mounted = {mount["mountPath"] for mount in container(document)["volumeMounts"]}
    assert {environment[key] for key in ("SWEETSPOT_ARTIFACTS", "SWEETSPOT_DATA") if key in environment} <= mounted


# -- pods -------------------------------------------------------------------------------------------------------------


@EVERY
def test_a_pod_has_no_rights_that_it_does_not_need(name: str) -> None:
    document = with_pods()[name]
    whole = pod(document)
    assert whole["securityContext"]["runAsNonRoot"]
    assert whole["securityContext"]["runAsUser"] == whole["securityContext"]["fsGroup"] == 10001
    assert whole["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostname", "shareProcessNamespace"} & set(whole)  # names of workers differ
    rights = container(document)["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert "/tmp" in {mount["mountPath"] for mount in container(document)["volumeMounts"]}
    assert container(document)["image"] == f"sweetspot:{sweetspot.__version__}"


@JOBS
def test_a_pod_that_trains_has_a_gpu_and_time_to_stop(name: str) -> None:
    job = named("Job")[name]
    assert container(job)["resources"]["limits"]["nvidia.com/gpu"] == 1
    longest = max(drain._STEP_SECONDS + drain._LAST_SECONDS, supervisor._DRAIN_SECONDS + 1)
    assert pod(job)["terminationGracePeriodSeconds"] > longest


@JOBS
def test_a_pod_that_was_told_to_go_away_is_no_failure(name: str) -> None:
    job = named("Job")[name]
    assert pod(job)["restartPolicy"] == "Never"  # a pod failure policy wants that
    disrupted, stopped = job["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == stopped["action"] == "Ignore"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert stopped["onExitCodes"]["containerName"] == container(job)["name"]


def test_each_worker_has_an_index_of_its_own() -> None:
    spec = named("Job")["sweetspot-workers"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]


# -- what a worker's pod does -----------------------------------------------------------------------------------------

WORKER = """#!/bin/sh
trap 'echo asked >>"$CALLS"; exit 0' TERM
echo "began $*" >>"$CALLS"
while [ ! -e "$CALLS.done" ]; do sleep 0.02; done
exit "$(cat "$CALLS.done")"
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def running_pod(tmp_path: Path, calls: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The command of a worker's pod, with a worker that waits."""
    command = tmp_path / "sweetspot"
    command.write_text(WORKER)
    command.chmod(0o755)
    main = container(named("Job")["sweetspot-workers"])
    process = subprocess.Popen(
        [*main["command"], *main["args"]],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)},
        start_new_session=True,
    )
    try:
        while not calls.exists() or not calls.read_text().endswith("\n"):
            assert process.poll() is None
            time.sleep(0.02)
        assert calls.read_text() == "began worker --name cifar100\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_preempted_pod_asks_its_worker_to_stop_and_does_not_count_as_done(
    running_pod: "subprocess.Popen[bytes]", calls: Path
) -> None:
    running_pod.send_signal(signal.SIGTERM)  # to the first process alone
    status = running_pod.wait(30)
    (_, stopped) = named("Job")["sweetspot-workers"]["spec"]["podFailurePolicy"]["rules"]
    assert [status] == stopped["onExitCodes"]["values"]
    assert calls.read_text().splitlines()[1:] == ["asked"]


@pytest.mark.parametrize("status", [0, 1])
def test_a_pod_whose_worker_has_ended_of_itself_ends_as_it_did(
    running_pod: "subprocess.Popen[bytes]", calls: Path, status: int
) -> None:
    whole = calls.with_suffix(".new")
    whole.write_text(str(status))
    whole.rename(f"{calls}.done")
    assert running_pod.wait(30) == status

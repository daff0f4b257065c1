"""Token sets on Apache Beam: the bytes of those made without it, also past a failure."""

import logging
import subprocess
import sys
import time

import pytest
import token_sets

from mq_jax.tokensets import make_token_set, open_tokens
from mq_jax.tokensets.manifest import read_manifest

# launch/test.sh installs it.
pytest.importorskip("apache_beam")

THREADS = [
    "--runner=FnApiRunner",
    "--direct_num_workers=2",
    "--direct_running_mode=multi_threading",
]
PROCESSES = ["--runner=DirectRunner", "--direct_num_workers=2"]
PROCESSES += ["--direct_running_mode=multi_processing"]


@pytest.fixture(autouse=True)
def quiet():
    """Beam tells each of its threads in the log."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(level)


def test_workers_write_the_same_bytes_and_go_on_past_a_failure(tmp_path):
    from mq_jax.tokensets.beam import MakeShard, make_token_set_on_beam

    spec, folder = token_sets.spec(tmp_path), tmp_path / "set"
    with token_sets.encoders_shared():
        make_token_set(spec, tmp_path / "once")
        whole = token_sets.files(tmp_path / "once")
        make_token_set(spec, folder)
        for path in folder.glob("*.array_record"):
            path.unlink()
        # Where a shard should go lies what no worker can replace.
        blocked = folder / "tokens-00002-of-00004.array_record"
        blocked.mkdir()
        with pytest.raises(Exception, match="Is a directory"):
            make_token_set_on_beam(spec, folder, THREADS)
        kept = {p: p.stat().st_mtime_ns for p in folder.glob("*.array_record") if p != blocked}
        assert not list(folder.glob(".*.tmp"))
        blocked.rmdir()
        made = make_token_set_on_beam(spec, folder, THREADS)
        assert token_sets.files(folder) == whole
        assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
        assert made.encoded + made.kept == 10 == len(open_tokens(folder))
        # What an engine does with a bundle of which it does not know whether it was done.
        again = MakeShard(spec, str(folder))
        again.setup()
        assert [list(again.process(shard)) for shard in (2, 0)] == [[(0, 2)], [(0, 2)]]
        other = MakeShard(spec._replace(views="flip"), str(folder))
        with pytest.raises(ValueError, match="something else: views differ"):
            other.setup()


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes_after_one_of_them_died(tmp_path):
    """Each loads and compiles for itself; the command line starts them."""
    spec, folder = token_sets.spec(tmp_path, count=40), tmp_path / "set"
    make_token_set(spec, tmp_path / "once")
    command = [sys.executable, "-m", "mq_jax.main", "--mode=tokens", f"--workdir={spec.tokenizer}"]
    command += [f"--images={spec.directory}", f"--output={folder}", "--shards=4"]
    command += [f"--beam={' '.join(PROCESSES)}"]
    first = subprocess.Popen(command)
    try:
        # Its workers are at it: one shard is whole.
        while len(list(folder.glob("*.json"))) < 2:
            assert first.poll() is None
            time.sleep(0.02)
    finally:
        first.kill()
        first.wait()
    assert not read_manifest(folder)["complete"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "40 images of folder all" in done.stdout
    assert token_sets.files(folder) == token_sets.files(tmp_path / "once")

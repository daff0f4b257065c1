"""Metric outputs: read back by TensorBoard's own reader, and exact across a resume."""

import errno
import json
from contextlib import closing

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX.record_writer import RecordWriter

from mq_jax.runs.writers import EventWriter, MetricsFile, NullWriters, Writers, read_metrics


def events_of(directory):
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return accumulator


def image(value):
    return np.full((4, 6, 3), value, np.uint8)


def test_lines_are_readable_while_the_file_is_open(tmp_path):
    metrics = MetricsFile(tmp_path / "m.jsonl")
    metrics.write(1, {"loss": np.float32(0.5), "count": np.int32(3), "array": np.ones((1,))})
    assert (tmp_path / "m.jsonl").read_text().startswith('{"step": 1, ')
    assert read_metrics(tmp_path / "m.jsonl") == [
        {"step": 1, "loss": 0.5, "count": 3, "array": 1.0}
    ]
    metrics.sync()
    metrics.close()


def test_numbers_that_json_lacks_become_null(tmp_path):
    with closing(MetricsFile(tmp_path / "m.jsonl")) as metrics:
        metrics.write(1, {"a": float("nan"), "b": np.inf, "c": -np.float32(np.inf)})

    def refuse(constant):
        raise AssertionError(constant)

    row = json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "a": None, "b": None, "c": None}


@pytest.mark.parametrize("step", [1, 2])
def test_a_step_has_one_line_in_increasing_order(tmp_path, step):
    with closing(MetricsFile(tmp_path / "m.jsonl")) as metrics:
        metrics.write(2, {"loss": 1.0})
        with pytest.raises(ValueError, match=f"has step 2, so step {step}"):
            metrics.write(step, {"loss": 2.0})


@pytest.mark.parametrize(
    "resume_step, kept", [(None, []), (0, []), (2, [1, 2]), (3, [1, 2]), (9, [1, 2, 4])]
)
def test_resuming_keeps_exactly_the_steps_that_do_not_come_again(tmp_path, resume_step, kept):
    path = tmp_path / "m.jsonl"
    with closing(MetricsFile(path)) as metrics:
        for step in (1, 2, 4):
            metrics.write(step, {"loss": step / 2})
    with open(path, "a") as file:
        file.write('{"step": 5, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 4]
    with closing(MetricsFile(path, resume_step)) as metrics:
        metrics.write(10, {"loss": 0.0})
    assert [row["step"] for row in read_metrics(path)] == [*kept, 10]
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_damaged_line_in_the_middle_is_left_out_with_a_warning(tmp_path, caplog):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\0\n[]\n{"step": 2}\n{"step": 2}\n')
    MetricsFile(path, resume_step=9).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    warnings = [record.getMessage().split(" of ")[0] for record in caplog.records]
    assert warnings == ["Line 2", "Line 3"]


def test_a_metrics_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="m.jsonl"):
        read_metrics(tmp_path / "m.jsonl")


def test_tensorboard_reads_the_scalars_and_images(tmp_path):
    events = EventWriter(tmp_path)
    events.write_scalars(3, {"eval/mse": np.float32(0.25)})
    events.write_scalars(4, {"eval/mse": np.nan})  # No point of a curve.
    events.write_images(3, {"reconstructions": image(200)})
    events.flush()
    accumulator = events_of(tmp_path)
    assert [(e.step, e.value) for e in accumulator.Scalars("eval/mse")] == [(3, 0.25)]
    (event,) = accumulator.Images("reconstructions")
    assert (event.step, event.width, event.height) == (3, 6, 4)
    assert event.encoded_image_string.startswith(b"\x89PNG")
    events.close()


@pytest.mark.parametrize("resume_step, expected", [(2, [1, 2, 3]), (None, [3])])
def test_tensorboard_sees_each_step_once_after_a_resume(tmp_path, resume_step, expected):
    events = EventWriter(tmp_path)
    for step in (1, 2, 3, 4):
        events.write_scalars(step, {"loss": 1.0})
    events.close()
    events = EventWriter(tmp_path, resume_step)
    events.write_scalars(3, {"loss": 2.0})
    events.close()
    scalars = events_of(tmp_path).Scalars("loss")
    assert [event.step for event in scalars] == expected
    assert scalars[-1].value == 2.0


def test_the_writers_agree_and_save_each_image_as_a_file(tmp_path):
    writers = Writers(tmp_path)
    writers.write_scalars(5, {"loss": 0.5})
    writers.write_images(5, {"reconstructions": image(7)})
    writers.flush()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 5, "loss": 0.5}]
    assert [e.value for e in events_of(tmp_path / "tensorboard").Scalars("loss")] == [0.5]
    saved = np.asarray(Image.open(tmp_path / "reconstructions" / "00000005.png"))
    np.testing.assert_array_equal(saved, image(7))
    writers.close()


def test_null_writers_take_every_call_of_writers():
    writers = NullWriters()
    writers.write_scalars(1, {"loss": 1.0})
    writers.write_images(1, {"reconstructions": image(0)})
    writers.flush()
    writers.close()
    public = {name for name in vars(Writers) if not name.startswith("_")}
    assert public == {name for name in vars(NullWriters) if not name.startswith("_")}


# A full disk: the metrics are needed to go on, the rest is for people.


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_events_and_pictures_that_cannot_be_written_are_left_out_with_one_line_each(
    tmp_path, monkeypatch, caplog
):
    with closing(Writers(tmp_path)) as writers:
        with monkeypatch.context() as disk:
            disk.setattr(RecordWriter, "flush", full)
            disk.setattr(RecordWriter, "__init__", full)
            disk.setattr(Image.Image, "save", full)
            for step in (1, 2):
                writers.write_scalars(step, {"loss": 1.0})
            writers.write_images(2, {"pictures": image(2)})
        assert [record.message.split(" cannot")[0] for record in caplog.records] == [
            "TensorBoard's events",
            f"The picture {tmp_path}/pictures/00000002.png",
        ]
        writers.write_scalars(3, {"loss": 3.0})
        writers.write_images(4, {"pictures": image(4)})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    # No part of a picture is left, and what came after is there.
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["00000004.png"]
    events = events_of(tmp_path / "tensorboard")
    assert [event.step for event in events.Scalars("loss")][-1] == 3
    assert [event.step for event in events.Images("pictures")] == [4]


def test_event_files_that_cannot_be_made_do_not_end_a_run_before_it_begins(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file in its place")
    with closing(Writers(tmp_path)) as writers:
        writers.write_scalars(1, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]


def test_metrics_that_cannot_be_written_are_an_error_that_names_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics._file.close()
    metrics._file = open("/dev/full", "a", encoding="utf-8")
    with pytest.raises(OSError, match="No space left on device.*metrics.jsonl"):
        metrics.write(1, {"loss": 1.0})
    # Nor does a checkpoint go on without the line.
    with pytest.raises(OSError, match="No space left on device.*metrics.jsonl"):
        metrics.sync()
    metrics.close()


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2, "eval/mse": "low"}',
        '{"step": 2, "eval/mse": [1]}',
        '{"step": 2, "eval/mse": NaN}',
        '{"step": true}',
        '{"step": -1}',
        '{"eval/mse": 1}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_line_of_anything_but_numbers_is_left_out(tmp_path, line, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3, "eval/mse": null}}\n', "latin-1")
    with caplog.at_level("WARNING"):
        assert read_metrics(str(path)) == [{"step": 1}, {"step": 3, "eval/mse": None}]
    assert "Line 2 of" in caplog.text

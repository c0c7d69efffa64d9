"""Reads event files by the rules of TensorBoard, which is not needed."""

from jacsup_jax.runs import event_files


def read(directory):
  """Returns what is shown of a stage: by tag, values by step.

  A start makes void what has its step or a later one. Of pictures the value is
  the bytes of a PNG.

  Args:
    directory: of event files.
  """
  shown = {}
  for path in sorted(directory.glob('events.out.tfevents*')):
    for event in event_files._read_events(path):
      if event.HasField('session_log'):
        for values in shown.values():
          for step in [s for s in values if s >= event.step]:
            del values[step]
      for value in event.summary.value:
        content = value.simple_value
        if value.HasField('image'):
          content = value.image.encoded_image_string
        assert event.step not in shown.setdefault(value.tag, {})
        shown[value.tag][event.step] = content
  return {tag: values for tag, values in shown.items() if values}

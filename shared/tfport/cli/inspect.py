"""Shows a model as one paradigm has built it: layers, output shapes, parameters, and what each optimizer trains.

Example:
  tfport inspect --model=batchnorm_gan --paradigm=keras3

Exit codes: 0 done; 2 bad input.
"""

from __future__ import annotations

from absl import flags

from tfport.cli.outputs import output_file
from tfport.files import write_json

FLAGS = flags.FLAGS

flags.DEFINE_string("model", "vanilla_gan", "Model, by name.")
flags.DEFINE_string(
    "paradigm",
    "gradient_tape",
    "Paradigm to build it in: tf1_graph, gradient_tape, keras2, keras3, or a module:function factory.",
)
flags.DEFINE_string("json", None, "File to write the table to as JSON.")


def main() -> int:
    """Prints the layer table that the flags ask for; returns the exit code."""
    from tfport import inspection, models, paradigms
    from tfport.quiet import load_tensorflow

    json_path = output_file("json")
    spec = models.get(FLAGS.model)
    paradigms.check(FLAGS.paradigm)
    load_tensorflow()
    subject = paradigms.build(FLAGS.paradigm, spec)
    table = inspection.layer_table(subject)
    subject.close()
    inspection.print_table(table)
    if json_path is not None:
        write_json(json_path, table.as_json())
        print(f"JSON: {json_path}")
    return 0

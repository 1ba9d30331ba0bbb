"""The fixture assert_equivalent, in pytest runs of its own: what passes, what a failure says, settings and pages."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

SIDES = """
import numpy as np
import tensorflow.compat.v1 as tf


def graph(rate):
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    y = tf.placeholder(tf.float32, [None, 1], name="y")
    weights = tf.get_variable("weights", [3, 1], initializer=tf.ones_initializer())
    outputs = tf.matmul(x, weights, name="outputs")
    loss = tf.reduce_mean(tf.square(outputs - y), name="loss")
    tf.train.GradientDescentOptimizer(rate).minimize(loss, name="train_op")


def legacy():
    graph(0.1)


def modern():
    graph(0.1)


def faster():
    graph(0.2)


def broken():
    raise ValueError("no such data")


def batch(step):
    draw = np.random.default_rng(step)
    return {"x": draw.normal(size=(4, 3)).astype("float32"), "y": draw.normal(size=(4, 1)).astype("float32")}
"""
QUICK = "[pytest]\ntfport_steps = 2\ntfport_rungs = 1, 3-6\n"


@pytest.fixture(scope="module", autouse=True)
def frameworks() -> None:
    """Loads what the inner runs need: pytester forgets the modules that an inner run imports, and these load once."""
    import tensorflow.compat.v1 as tf

    import tfport
    import tfport.report.check_html

    def side() -> None:
        x = tf.placeholder(tf.float32, [2, 1], name="x")
        loss = tf.reduce_mean(tf.matmul(x, tf.get_variable("w", [1, 1])), name="loss")
        tf.train.GradientDescentOptimizer(0.1).minimize(loss)

    report = tfport.check(side, side, steps=1)
    assert report.equal
    assert tfport.report.check_html.render_check(report)


def test_one_run_of_each_outcome(pytester: pytest.Pytester) -> None:
    pytester.makeini(QUICK)
    pytester.makepyfile(
        sides=SIDES,
        test_port="""
            import pytest
            import sides

            def test_equal(assert_equivalent):
                report = assert_equivalent(sides.legacy, sides.modern, sides.batch)
                assert report.equal and report.steps == 2
                assert [rung.rung for rung in report.pair.rungs][1:] == [
                    "structure", "forward", "loss", "gradient", "update"
                ]
                assert report.command == "pytest test_port.py::test_equal"
                other = assert_equivalent(sides.legacy, sides.modern, sides.batch, steps=3, rungs="update")
                assert other.steps == 3
                assert other.pair.rungs[-1].rung == "update" and len(other.pair.rungs) < len(report.pair.rungs)

            @pytest.mark.parametrize("case", ["a/b", "a b"])
            def test_faster(assert_equivalent, case):
                assert_equivalent(sides.legacy, sides.faster, sides.batch)

            def test_raises(assert_equivalent):
                assert_equivalent(sides.legacy, sides.broken, sides.batch)

            def test_no_such_rung(assert_equivalent):
                assert_equivalent(sides.legacy, sides.modern, sides.batch, rungs="10")

            def test_no_such_option(assert_equivalent):
                assert_equivalent(sides.legacy, sides.modern, sides.batch, stepz=1)
        """,
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--tfport-html=pages")
    result.assert_outcomes(passed=1, failed=5)
    text = result.stdout.str()

    # The assertion is the report's text and the test's own line; no frame of the plugin's is shown.
    assert text.count("E       AssertionError: sides:faster differs from sides:legacy: first at rung 6 update") == 2
    assert re.search(r"^E +The smallest relative tolerance", text, re.MULTILINE)
    assert text.count(">       assert_equivalent(sides.legacy, sides.faster, sides.batch)") == 2
    assert "pytest_plugin.py" not in text

    # What the user gave wrong is said in a line, without a traceback.
    assert "the modern factory sides:broken raised ValueError: no such data" in text
    assert ">       assert_equivalent(sides.legacy, sides.broken, sides.batch)" not in text
    assert "rungs='10': '10' is no rung. Valid: 0 repeat, 1 structure" in text
    assert "unexpected keyword argument 'stepz'" in text

    # A page for each check, named after its test; a failing one's place is told.
    pages = {path.name: path.read_text() for path in (pytester.path / "pages").iterdir()}
    names = sorted(pages)
    assert [name for name in names if "faster" not in name] == [
        "test_port.py-test_equal-2.html",
        "test_port.py-test_equal.html",
    ]
    faster = [name for name in names if "faster" in name]
    assert len(faster) == 2
    assert all(re.fullmatch(r"test_port\.py-test_faster-a-b-[0-9a-f]{8}\.html", name) for name in faster)
    assert all("sides:faster differs from sides:legacy" in pages[name] for name in faster)
    assert all(f"Report: {pytester.path / 'pages' / name}" in text for name in faster)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("tfport_steps = 0", "tfport_steps = 0 in {file}: expected a whole number from 1 to 40,000."),
        ("tfport_steps = many", "tfport_steps = many in {file}: expected a whole number"),
        ("tfport_seed = -1", "tfport_seed = -1 in {file}: expected a whole number from 0 to 2,147,483,647."),
        ("tfport_precision = float16", "tfport_precision = float16 in {file}: expected float32 or float64."),
        ("tfport_sample = steps", "tfport_sample = steps in {file}: expected steps:N, tensors:N or both"),
        ("tfport_sample = steps:2,steps:3", "expected steps:N, tensors:N or both"),
        ("tfport_rungs = 3-10", "tfport_rungs = 3-10 in {file}: '3-10' is no rung. Valid: 0 repeat"),
    ],
)
@pytest.mark.parametrize("file", ["tox.ini", "pyproject.toml"])
def test_bad_setting_is_refused_before_any_test(
    pytester: pytest.Pytester, file: str, setting: str, expected: str
) -> None:
    if file == "tox.ini":
        pytester.makeini(f"[pytest]\n{setting}\n")
    else:
        name, value = setting.split(" = ")
        pytester.makepyprojecttoml(f'[tool.pytest.ini_options]\n{name} = "{value}"\n')
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{expected.format(file=file).replace('[', '[[]')}*"])


def test_settings_of_a_pyproject_are_taken(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        tfport_steps = "2"
        tfport_seed = "7"
        tfport_precision = "float32"
        tfport_sample = "steps:1,tensors:1"
        tfport_rungs = "structure, update"
        """
    )
    pytester.makepyfile(
        sides=SIDES,
        test_port="""
            import sides

            def test_options(assert_equivalent):
                report = assert_equivalent(sides.legacy, sides.modern, sides.batch)
                assert (report.steps, report.seed, report.precision) == (2, 7, "float32")
                assert report.left_out
                assert {"structure", "update"} <= {rung.rung for rung in report.pair.rungs}
        """,
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert list(pytester.path.glob("**/*.html")) == []


def test_folder_for_pages_that_is_a_file_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    pytester.path.joinpath("pages").write_text("")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "--tfport-html=pages")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --tfport-html=pages is a file; expected a folder."])


def test_a_run_without_checks_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makeini(QUICK)
    pytester.makepyfile(
        """
        import sys

        def test_nothing(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("tfport")
            assert not {"numpy", "tensorflow", "keras", "matplotlib", "tfport.checking.check"} & sys.modules.keys()
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_loading_takes_a_few_milliseconds() -> None:
    timed = (
        "import pytest, time; began = time.process_time(); import tfport.pytest_plugin; "
        "print(time.process_time() - began)"
    )
    found = [
        float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(found) < 0.02, found

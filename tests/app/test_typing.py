"""What a type checker knows of tasks: a wrong argument is found before anything runs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
from tq import App, Handle, RetryPolicy, TaskHandler

app = App()

@app.task
def add(a: int, b: int = 1) -> int:
    return a + b

@app.task(queue="mail", priority="high", retry=RetryPolicy(max_attempts=5), timeout=30)
async def send(to: str, body: str) -> str:
    return to + body

class Resize(TaskHandler):
    queue = "pictures"

    async def run(self, width: int) -> bytes:
        return bytes(width)

resize = app.register(Resize())

# What is right.
reveal_type(add(1))
reveal_type(add.enqueue(1, b=2))
reveal_type(add.enqueue(1).result())
reveal_type(add.call(1))
reveal_type(send.enqueue("a", "b").result(timeout=1))
reveal_type(resize.enqueue(3).result())
reveal_type(add.enqueue_many([(1, 2), {"a": 1}]))
reveal_type(add.using(priority=1).enqueue(1))

async def main() -> None:
    reveal_type(await send("a", "b"))
    reveal_type(await (await send.aenqueue("a", "b")))
    reveal_type(await send.acall("a", "b"))
    async for handle in app.aresults([await resize.aenqueue(1)]):
        reveal_type(handle.result())

# What is wrong.
add.enqueue("1")
send.enqueue("a")
send.enqueue("a", "b", "c")
send.enqueue(to="a", text="b")
resize.enqueue("3")
add.using(prority=1)
text: str = add.call(1)

@app.task(time_out=3)
def wrong() -> None: ...
"""

REVEALED = [
    "int",
    "Handle[int]",
    "int",
    "int",
    "str",
    "bytes",
    "list[Handle[int]]",
    "Handle[int]",
    "str",
    "str",
    "str",
    "bytes",
]

WRONG = [
    'Argument 1 to "enqueue" of "DeclaredTask" has incompatible type "str"; expected "int"',
    'Missing positional argument "body" in call to "enqueue"',
    'Too many arguments for "enqueue"',
    'Unexpected keyword argument "text" for "enqueue"',
    'Argument 1 to "enqueue" of "DeclaredTask" has incompatible type "str"; expected "int"',
    'Unexpected keyword argument "prority" for "using"',
    'Incompatible types in assignment (expression has type "int", variable has type "str")',
    'Unexpected keyword argument "time_out"',
    'Untyped decorator makes function "wrong" untyped',
]


@pytest.mark.acceptance
def test_mypy_checks_what_is_enqueued_against_the_function(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--cache-dir",
            ROOT / ".mypy_cache",
            "program.py",
        ],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = done.stdout.splitlines()
    errors = [line for line in lines if line.startswith("program.py") and ": error: " in line]
    revealed = [
        line.split('"')[1].replace("builtins.", "").replace("tq.app.handle.", "")
        for line in lines
        if "Revealed" in line
    ]

    assert revealed == REVEALED
    assert len(errors) == len(WRONG)
    for error, expected in zip(errors, WRONG, strict=True):
        assert expected in error

"""What the commands administer in tests: a real broker in this process, a client, and workers on demand."""

import asyncio
from typing import Any

from tq.admin.answer import Answer
from tq.admin.operator import Operator
from tq.app.app import App
from tq.app.embedded import MemoryDialer
from tq.client import SyncClient
from tq.core.ids import TaskId
from tq.core.retry import RetryPolicy
from tq.core.task import Task
from tq.worker.worker import Worker


class Shop:
    """What the tests administer: a broker that starts empty."""

    def __init__(self) -> None:
        self.dialer = MemoryDialer()
        self.client = SyncClient(self.dialer)
        self.answer = True
        self.questions: list[str] = []
        self.operator = Operator(self.client, self._confirm)

    def _confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.answer

    def enqueue(self, count: int = 1, *, name: str = "mail.send", queue: str = "mail") -> list[TaskId]:
        """Enqueue tasks that have one attempt."""
        once = RetryPolicy(max_attempts=1)
        return self.client.enqueue_many(
            Task.build(name).args(number).queue(queue).retry(once).task() for number in range(count)
        )

    def run(self, *, queue: str = "mail") -> None:
        """Run every task of *queue*: ``mail.fail`` fails, the others return a text."""
        app = App()

        def fail(number: int) -> None:
            raise ValueError(f"no\nmail {number}")

        def send(number: int) -> str:
            return f"a private result {number}"

        app.task(name="mail.fail")(fail)
        app.task(name="mail.send")(send)
        asyncio.run(Worker(app.registry, self.dialer, queues=[(queue, 1)], burst=True, name="w1").run())

    def close(self) -> None:
        self.client.close()
        self.dialer.close()


def fields(answer: Answer) -> dict[str, Any]:
    """Return the document of an answer that is one object."""
    assert isinstance(answer.document, dict)
    return answer.document


def items(answer: Answer) -> list[Any]:
    """Return the document of an answer that is a list."""
    assert isinstance(answer.document, list)
    return answer.document

"""A program that embeds a broker and does nothing with it: what tq-broker is to a fleet, on files.

It answers the same questions: it says ``listening on`` when it has a broker, its own or
another's, and ends with 0 at SIGTERM.
"""

import signal
import sys
import threading

from tq import App


def main() -> int:
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    app = App(sys.argv[1])
    app.client.stats()
    print(f"listening on {app.url}", flush=True)
    # It looks again and again, as the web server that it stands for would.
    while not over.wait(0.05):
        app.client.stats()
    return 0

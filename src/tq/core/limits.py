"""Limits that several layers agree on, each with its reason.

What one layer alone decides is where it is decided; what both sides of the wire, or the
engine and what is around it, must know alike is here.  `docs/protocol.md` tells them to
those who write a client.

Invariant: what one limit lets in, the next on its way has room for:

    tasks of a client's frame < change < answer < frame, and the largest payload < answer
"""

NAME_LENGTH_MAX = 255
"""Characters of a task name: it is in every spec, every flow's row and every log line."""

QUEUE_NAME_LENGTH_MAX = 128
"""Characters of a queue name: it is in every spec, and an argument on command lines."""

PAYLOAD_BYTES_DEFAULT_MAX = 256 * 1024
"""Bytes of the arguments or the result of a task, unless the broker is told otherwise: larger things are for files."""

PAYLOAD_BYTES_LIMIT = 512 * 1024
"""What a broker may be told at most: with both names and its last failure such a task fits a record of 1 MB."""

CHANGE_BYTES_MAX = 512 * 1024
"""What one command may write, keys and values together, so that it can be one record of a replicated log.

Those cap a record at 1 MB.  A single task may be larger: a payload of 512 KB, its spec and the text of its failure.
"""

FRAME_BYTES_MAX = 1024 * 1024
"""The longest body of a frame, unless a side says otherwise.

The largest payload or result fits with all that is around it, and a connection holds no more before it can be read.
"""

ANSWER_BYTES_MAX = 1_000 * 1_024
"""What an answer may take, as the engine counts it: a frame, with a little to spare for what is counted roughly."""

FRAME_TASKS_MAX = 1_000
"""Tasks in one `Enqueue`: one atomic change, done within a few milliseconds of the broker's loop."""

FRAME_TASK_BYTES_MAX = CHANGE_BYTES_MAX // 2
"""Payloads and specs that a client puts into one `Enqueue` of several tasks.

Half of a change: the broker counts specs twice and adds keys, and a smaller frame is answered sooner.
"""

REQUEST_IDS_MAX = 1_000
"""Ids in one request (`Get`, `Wait`, `Unwait`, `Cancel`, `ControlDead`): each costs the broker a read or a few."""

LABELS_MAX = 16
"""Labels of one worker: they are shown in a column of a table."""

LABEL_CHARACTERS_MAX = 128
"""Characters of the key, and of the value, of a label."""

STUCK_MAX = 16
"""Tasks that one heartbeat names whose handlers go on although they were given up: to be shown, like labels."""

PAGE_MAX = 1_000
"""Entries on one page of a list; it has fewer where they do not fit an answer."""

SCAN_BYTES_MAX = 1 << 20
"""What one scan of the store returns unless it is told otherwise: a megabyte is copied in some 0.2 ms of the loop."""

# How much an `Enqueue` will write is counted before it writes anything, by clients and by the broker.

COUNTED_TASK_BYTES = 128
"""For each task, besides its spec and its payload.

It takes 70 bytes of keys, 26 to name its row and up to 22 in its record; one that is refused takes less, in the answer.
"""

COUNTED_SPEC_BYTES = 192
"""For each spec, besides twice its length: it may be the first of its queue, its flow and its name.

The queue's row takes up to 130 bytes and the queue's name, the flow's 26, the row of the task name 12 and the name.
Both names are in the spec.
"""

COUNTED_FRAME_BYTES = 256
"""For the frame: its answer, and the numbers that a batch writes now and then."""

"""The worker: receives tasks under leases, runs their handlers, settles their outcomes.

    link -> dispatcher -> pool -> executor -> dispatcher -> link

`worker` puts the parts together and leads a worker's life; `keeper` tells the broker
that the process lives, whatever its handlers do.
"""

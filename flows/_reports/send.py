"""Give messages to every endpoint of an audience, in order, each once per process."""

import threading
from collections import OrderedDict

from prefect.logging.loggers import flow_run_logger

from blocks._messages import Message
from blocks.errors import PenstockError
from flows._reports.audience import Audience

REMEMBERED = 4096  # ids: Prefect calls a task's running hook twice when the task dies

_lock = threading.Lock()
_sent: OrderedDict[str, None] = OrderedDict()


def tell(audience: Audience, messages: list[Message]) -> None:
    """Send what was not sent yet. A run never fails because nobody listened: it is logged.

    A key that is missing or broken sends nothing, and says so; there is no unsigned way out.
    """
    if audience.dry:
        return
    with _lock:  # hooks run in many threads, and progress must not overtake itself
        for message in messages:
            if message.id in _sent:
                continue
            _sent[message.id] = None
            if len(_sent) > REMEMBERED:
                _sent.popitem(last=False)
            for name, endpoint in audience.endpoints.items():
                try:
                    endpoint.send(message)
                except PenstockError as error:
                    flow_run_logger(audience.root).warning("endpoint %r: %s", name, error)

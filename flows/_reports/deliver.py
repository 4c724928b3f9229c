"""One endpoint's sender: its runs in turn, each run's messages in order.

lane (a run) ──► send ──► told
                  ├─ refused for good ──► dead, and the next of the lane
                  └─ anything else ──► later; the lane waits, other lanes go on,
                                       unless the whole endpoint seems to be down
"""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

from prefect.logging import get_logger

from blocks.errors import BlockMissing, ConfigError, NotDelivered, PenstockError
from flows._reports.audience import Hearer
from flows._reports.ledger import Ledger
from flows._reports.rows import Delivery

FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0  # seconds between two attempts of a message
LONGEST_WISH = 3600.0  # seconds of a Retry-After that are honoured
DOWN_AFTER = 3  # failures in a row, whatever the run, until the endpoint itself rests
FRESH = 2.0  # seconds for which a block that was loaded is used: a new key counts soon
DEFAULT_PATIENCE = 72.0  # hours

Load = Callable[[str], Hearer]
Warn = Callable[[Delivery, str], None]
Settled = Callable[[], None]


class Sender(threading.Thread):
    """Delivers what waits for one endpoint until it is told to end."""

    def __init__(self, place: Path, endpoint: str, load: Load, warn: Warn, settled: Settled):
        super().__init__(name=f"penstock-{endpoint}", daemon=True)
        self._place, self._endpoint = place, endpoint
        self._load, self._warn, self._settled = load, warn, settled
        self._news = threading.Event()
        self._over = False
        self._hearer: Hearer | None = None
        self._loaded = 0.0
        self._failures = 0
        self._rests_until = 0.0

    def wake(self) -> None:
        self._news.set()

    def end(self) -> None:
        self._over = True
        self.wake()

    def run(self) -> None:
        ledger = Ledger(self._place)
        while not self._over:
            self._news.clear()
            try:
                pause = self._round(ledger)
            except Exception:
                get_logger("penstock").exception("%s: the ledger failed", self._endpoint)
                pause = FIRST_DELAY
            self._news.wait(pause)
        ledger.close()

    def _round(self, ledger: Ledger) -> float | None:
        """Serve every lane that is due; seconds until the next is, or None when nothing waits."""
        for root, due in ledger.lanes(self._endpoint):
            if max(due, self._rests_until) > time.time():
                break
            self._serve(ledger, root)
            if self._over:
                return 0
        if not (lanes := ledger.lanes(self._endpoint)):
            self._settled()
            return None
        return max(0.0, max(lanes[0][1], self._rests_until) - time.time())

    def _serve(self, ledger: Ledger, root: str) -> None:
        for delivery in ledger.waiting(self._endpoint, root):
            if self._over or not self._deliver(ledger, delivery):
                return

    def _deliver(self, ledger: Ledger, delivery: Delivery) -> bool:
        """Whether the lane may go on to its next message."""
        try:
            hearer = self._current()
            hearer.send(ledger.message(delivery.message), delivery.attempts + 1)
        except BlockMissing:
            return self._dead(ledger, delivery, "the endpoint was deleted")
        except NotDelivered as error:
            if error.final:
                self._is_up(ledger)
                return self._dead(ledger, delivery, str(error))
            return self._later(ledger, delivery, error)
        except PenstockError as error:
            self._loaded = 0.0  # a key that was mended counts at once
            return self._later(ledger, delivery, error)
        except Exception as error:
            get_logger("penstock").exception("%s: %s", self._endpoint, delivery.message)
            return self._later(ledger, delivery, error)
        self._is_up(ledger)
        ledger.settle(delivery, "told")
        if delivery.last:
            self._settled()
        return True

    def _is_up(self, ledger: Ledger) -> None:
        if self._failures >= DOWN_AFTER:
            ledger.hurry(self._endpoint)  # it is up again: no lane waits for that any longer
            self.wake()
        self._failures = 0

    def _current(self) -> Hearer:
        if self._hearer is None or time.monotonic() - self._loaded > FRESH:
            try:
                self._hearer = self._load(self._endpoint)
            except ConfigError:
                raise
            except Exception as error:
                if self._hearer is None:  # the API is away, and we never saw the block
                    raise NotDelivered(f"its settings cannot be read: {error!r}") from None
            self._loaded = time.monotonic()
        return self._hearer

    def _dead(self, ledger: Ledger, delivery: Delivery, why: str) -> bool:
        ledger.settle(delivery, "dead", why)
        self._warn(delivery, f"{why}; it is given up (`penstock reports dead`)")
        if delivery.last:
            self._settled()
        return True

    def _later(self, ledger: Ledger, delivery: Delivery, error: Exception) -> bool:
        now = time.time()
        hours = getattr(self._hearer, "give_up_after", DEFAULT_PATIENCE)
        if now - delivery.made > hours * 3600:
            return self._dead(ledger, delivery, f"{error} (for {hours:g} hours)")
        status = error.status if isinstance(error, NotDelivered) else None
        wish = error.retry_after if isinstance(error, NotDelivered) else None
        delay = _delay(delivery.attempts)
        if wish is not None:
            delay = max(delay, min(wish, LONGEST_WISH))
        if isinstance(error, NotDelivered) and (status is None or status >= 500 or status == 429):
            self._failures += 1
            if wish is not None:
                self._rests_until = now + delay
            elif self._failures >= DOWN_AFTER:
                self._rests_until = now + _delay(self._failures - DOWN_AFTER)
        ledger.postpone(delivery, now + delay, str(error))
        self._warn(delivery, f"{error}; it will be tried again")
        return False


def _delay(attempts: int) -> float:
    """Exponential, with jitter so that many runs do not come back at once."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempts, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret hangs on it

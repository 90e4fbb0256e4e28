"""What dlbench changes in Horovod 0.28.1, each edit with its reason.

Two make it compile with TensorFlow 2.21, one makes it tell of ranks that are stuck, two have the
launcher of an elastic job go on without them, and two have a launcher wait for ranks that save.
"""

from typing import NamedTuple


class Edit(NamedTuple):
    """One change to the unpacked source: `old`, found exactly once in `path`, becomes `new`."""

    path: str
    old: str
    new: str
    reason: str


EDITS = (
    Edit(
        path="horovod/tensorflow/CMakeLists.txt",
        old='list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
        new="",
        reason="its XLA ops are for GPUs only and include headers that TensorFlow 2.21 has moved",
    ),
    Edit(
        path="horovod/tensorflow/mpi_ops.cc",
        old="""\
// Forward declaration of AsGpuStreamValue
namespace stream_executor {
namespace gpu {
GpuStreamHandle AsGpuStreamValue(Stream* stream);
} // namespace stream_executor
} // namespace gpu
#if TENSORFLOW_VERSION >= 2011000000
#include "tensorflow/compiler/xla/stream_executor/stream.h"
#else
#include "tensorflow/stream_executor/stream.h"
#endif // TENSORFLOW_VERSION >= 2011000000
""",
        new="""\
#include "xla/stream_executor/stream.h"
namespace stream_executor {
namespace gpu {
inline GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
""",
        reason="TensorFlow 2.21 no longer exports AsGpuStreamValue; the stream knows its handle",
    ),
    Edit(
        path="horovod/common/gloo/gloo_controller.cc",
        old="global_ranks_.reserve(size_);",
        new="global_ranks_.resize(size_);",
        reason="a vector that stays empty lets the search for stalled ranks find none, ever",
    ),
    Edit(
        path="horovod/runner/elastic/registration.py",
        old="""\
            rendezvous_id = self._rendezvous_id

        rendezvous_id = self._wait(key, state, rendezvous_id)
        return rendezvous_id
""",
        new="""\
            rendezvous_id = self._rendezvous_id
            if self.count(state) == 1:
                # That one has died the others may learn late.
                seconds = self._driver._timeout * (3 if state == FAILURE else 1)
                patience = threading.Timer(seconds, self._give_up, [rendezvous_id, seconds])
                patience.daemon = True
                patience.start()

        rendezvous_id = self._wait(key, state, rendezvous_id)
        return rendezvous_id

    def _give_up(self, rendezvous_id, seconds):
        with self._lock:
            if rendezvous_id != self._rendezvous_id or len(self._states) >= self._size:
                return
            silent = [(host, slot.local_rank)
                      for host, slots in self._driver.host_assignments.items()
                      for slot in slots if (host, slot.local_rank) not in self._states]
            for key in silent:
                self._states[key] = FAILURE
                self._workers[FAILURE].add(key)
        for key in silent:
            logging.error('{}[{}] is given up with its host: no word of it for {} s, since others '
                          'left or died (--elastic-timeout)'.format(*key, seconds))
            threading.Thread(
                target=self._await_others, args=(key, rendezvous_id), daemon=True).start()

    def _await_others(self, key, rendezvous_id):
        import time

        self._wait(key, FAILURE, rendezvous_id)
        if self._driver.finished() and self._rendezvous_id == rendezvous_id:
            self._driver._results.add_result('{}[{}]'.format(*key), (1, time.time()))
""",
        reason="the launcher of an elastic job waits without end for a rank that is frozen, or for "
        "one of a host that is cut off; after its --elastic-timeout it counts as dead",
    ),
    Edit(
        path="horovod/runner/elastic/driver.py",
        old="""\
        timestamp = _epoch_time_s()
        try:
            coordinator_client.notify""",
        new="""\
        threading.Thread(
            target=self._notify, daemon=True,
            args=(coordinator_client, coordinator_slot_info, update_res)).start()

    def _notify(self, coordinator_client, coordinator_slot_info, update_res):
        timestamp = _epoch_time_s()
        try:
            coordinator_client.notify""",
        reason="the launcher tells rank 0 of new hosts, and of such as go, while it holds the lock "
        "without which nobody is given up: a rank 0 that is frozen would have it wait without end",
    ),
    Edit(
        path="horovod/runner/common/util/safe_shell_exec.py",
        old="GRACEFUL_TERMINATION_TIME_S = 5\n",
        new="""\
GRACEFUL_TERMINATION_TIME_S = 5
try:
    SAVING_TIME_S = float(os.environ.get('DLBENCH_GRACE_S', 30))
    if not 0 <= SAVING_TIME_S < float('inf'):
        raise ValueError
except ValueError:
    sys.exit('horovodrun: DLBENCH_GRACE_S={DLBENCH_GRACE_S} is no number of seconds; give one, '
             'such as 120'.format(**os.environ))


def _status(process):
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def _ends_when_told(shell):
    # bash puts the command, where it is the only one, in its own place: then this is the rank, and
    # its children are what helps it.
    try:
        words = shell.cmdline()
        is_shell = words[1:2] == ['-c'] and words[0].endswith('sh')
        ranks = shell.children() if is_shell else [shell]
    except psutil.NoSuchProcess:
        return True
    for rank in ranks:
        try:
            rank.terminate()
        except psutil.NoSuchProcess:
            pass
    over = (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED)
    end = time.monotonic() + SAVING_TIME_S
    while time.monotonic() < end and not all(_status(rank) in over for rank in ranks):
        time.sleep(0.1)
    if all(_status(rank) == psutil.STATUS_ZOMBIE for rank in ranks):
        end = time.monotonic() + GRACEFUL_TERMINATION_TIME_S
        while time.monotonic() < end and _status(shell) != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)
    return _status(shell) == psutil.STATUS_ZOMBIE
""",
        reason="a rank that was told to end makes a step and saves, for which 5 s are too few",
    ),
    Edit(
        path="horovod/runner/common/util/safe_shell_exec.py",
        old="    # Terminate children gracefully.\n",
        new="    if _ends_when_told(p):\n        return\n\n    # Terminate children gracefully.\n",
        reason="where /bin/sh is bash, a rank has taken the shell's place and was told nothing",
    ),
)

#!/usr/bin/env bash
# The hosts of an elastic training, as the file hosts.txt (or $DLBENCH_HOSTS) names them now, one
# host:ranks a line. Edit it while the training runs, as a whole: hosts leave and join after the next
# step.
#
#   horovodrun --min-np 4 --max-np 16 --network-interfaces eth1 \
#       --host-discovery-script configs/clusters/hosts.sh python -m dlbench.train
#
# The checkout with its .venv and the run folder lie on a file system that all hosts share: which of
# them has rank 0, and writes, may change. Tested on one machine: under several names, and as Linux
# namespaces.
exec cat "${DLBENCH_HOSTS:-hosts.txt}"

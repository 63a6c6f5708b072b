# What the commands in this folder share: finding Python, making environments, saying what happens.

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

say() { printf '\n== %s\n' "$*"; }

# Print "3.11 /path/to/python" for every CPython >= 3.10 that works here, oldest first, each version once.
list_pythons() {
  local candidate found
  for candidate in "${PYTHON:-}" python3 python3.{10..19} python "$HOME"/.pyenv/versions/*/bin/python; do
    [ -n "$candidate" ] || continue
    command -v "$candidate" >/dev/null 2>&1 || continue
    found=$("$candidate" -c '
import sys
if sys.implementation.name == "cpython" and sys.version_info >= (3, 10):
    print("%d.%d" % sys.version_info[:2], sys.executable)' 2>/dev/null) || continue
    [ -n "$found" ] && printf '%s\n' "$found"
  done | sort -t. -k2,2n -u -s
}

# Print the path of the Python to work with: $PYTHON, else python3, else the newest there is.
choose_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3; do
    [ -n "$candidate" ] || continue
    "$candidate" -c 'import sys; assert sys.version_info >= (3, 10); print(sys.executable)' 2>/dev/null && return
  done
  candidate=$(list_pythons | tail -n 1 | cut -d' ' -f2-)
  [ -n "$candidate" ] || die "no Python >= 3.10 found; set PYTHON=/path/to/python"
  printf '%s\n' "$candidate"
}

# make_venv DIR PYTHON: a virtual environment with pip, kept when it is there and works.
make_venv() {
  "$1/bin/python" -c 'import pip' >/dev/null 2>&1 && return
  rm -rf "$1"
  if "$2" -m venv "$1" >/dev/null 2>&1; then return; fi
  # Debian ships Python without ensurepip; where pip is there it can fill the environment itself.
  rm -rf "$1"
  "$2" -m venv --without-pip "$1" && "$2" -m pip --python "$1/bin/python" install --quiet pip && return
  die "cannot make a virtual environment; on Debian: apt install python3-venv"
}

# Sourced by quickstart.sh and test.sh: `ensure_env core`, `ensure_env demo` (with what segmentation, generation and the demo data
# need) or `ensure_env all` (with what development needs too) makes or reuses the environment $USP_VENV
# (default: .venv in the project) with exactly what requirements/constraints.txt pins.
# A second call installs nothing; an interrupted one is taken up again.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
USP_VENV="${USP_VENV:-$ROOT/.venv}"

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3.10 python3; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "no Python from 3.10 to 3.13 was found on PATH (tested: 3.11)" >&2
    return 1
}

ensure_env() {
    local base extra enough part parts files=() extras="$1" stamp="$USP_VENV/usp-installed" wanted python="$USP_VENV/bin/python"
    wanted="$ROOT $(cat "$ROOT"/requirements/*.txt "$ROOT/setup.py" "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)"
    case "$extras" in  # `all` satisfies `demo`, and that `core`
        core) enough=(core demo all) parts=(runtime) ;;
        demo) enough=(demo all) parts=(runtime seg gen demo) ;;
        all) enough=(all) parts=(runtime seg gen demo dev) ;;
        *)
            echo "ensure_env: unknown environment '$extras': expected core, demo or all" >&2
            return 2
            ;;
    esac
    for part in "${parts[@]}"; do
        files+=(-r "$ROOT/requirements/$part.txt")
    done
    for extra in "${enough[@]}"; do
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted $extra" ]; then
            return
        fi
    done
    rm -f "$stamp"
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        base="$(find_python)" || return
        "$base" -m venv "$USP_VENV" || return
    fi
    "$python" -m pip install --disable-pip-version-check -c "$ROOT/requirements/constraints.txt" wheel "${files[@]}" || return
    # Without isolation the build uses the setuptools just installed and fetches nothing.
    "$python" -m pip install --disable-pip-version-check --no-build-isolation --no-deps -e "$ROOT" || return
    echo "$wanted $extras" >"$stamp"
}

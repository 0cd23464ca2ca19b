# Sourced by quickstart.sh and test.sh: `ensure_env core`, `ensure_env demo` (with what segmentation, generation and the demo data
# need) or `ensure_env all` (with what the web demo and development need too) makes or reuses the environment $USP_VENV
# (default: .venv in the project) with exactly what requirements/constraints.txt pins. OpenMMLab's packages come without what they
# declare: requirements/openmmlab.txt has what of it is used, usp_mm/compat stand-ins for the rest.
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

# The requirements in the files named, one a line, without comments.
requirements() {
    sed -e 's/[[:space:]]*#.*//' -e '/^$/d' "${@/#/$ROOT/requirements/}"
}

ensure_env() {
    local base extra enough parts listed openmmlab others pip more="" wanted extras="$1"
    local stamp="$USP_VENV/usp-installed" python="$USP_VENV/bin/python" constraints="$ROOT/requirements/constraints.txt"
    wanted="$ROOT $(cat "$ROOT"/requirements/*.txt "$ROOT/setup.py" "$ROOT/pyproject.toml" | sha256sum | cut -d' ' -f1)"
    case "$extras" in  # `all` satisfies `demo`, and that `core`
        core) enough=(core demo all) parts=(runtime.txt) ;;
        demo) enough=(demo all) parts=({runtime,seg,gen,demo}.txt) ;;
        all) enough=(all) parts=({runtime,seg,gen,demo,app,docs,dev}.txt) ;;
        *)
            echo "ensure_env: unknown environment '$extras': expected core, demo or all" >&2
            return 2
            ;;
    esac
    if [ "$extras" != core ]; then
        more=', mmseg.datasets, mmseg.models, mmagic.evaluation, mmagic.models, mmagic.visualization, usp_mm.segmentation'
    fi
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
    listed="$(requirements "${parts[@]}" openmmlab.txt)" || return
    mapfile -t openmmlab < <(grep '^mm' <<<"$listed")
    mapfile -t others < <(grep -v '^mm' <<<"$listed")
    # Less than half of what is installed is ever imported: it is compiled at that time.
    pip=("$python" -m pip install --disable-pip-version-check --no-compile -c "$constraints")
    "${pip[@]}" wheel "${others[@]}" || return
    # Without isolation the build uses the setuptools just installed and fetches nothing.
    "${pip[@]}" --no-build-isolation --no-deps "${openmmlab[@]}" -e "$ROOT" || return
    if [ -n "${PYTHONDONTWRITEBYTECODE:-}" ]; then  # each process would compile it anew
        PYTHONDONTWRITEBYTECODE= "$python" -c "import usp_mm, mmpretrain.datasets, mmpretrain.models, usp_mm.engine$more" || return
    fi
    echo "$wanted $extras" >"$stamp"
}

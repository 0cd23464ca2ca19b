"""The parts of tools/quickstart.py, one module each.

A part defines

    NEEDS: str | None                    the part that makes its inputs
    inputs(work_dir, seeds) -> list      files that must be there before it runs
    run(stages, args) -> dict            its commands; returns what goes into summary.json
    rows(result) -> dict[str, str]       of the table at the end
"""

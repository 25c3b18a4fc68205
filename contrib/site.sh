#!/bin/sh
# Builds the documents as a site: sh contrib/site.sh [DIRECTORY]     (default: site)
#
# With the virtual environment of contrib/test.sh, or any Python that has mkdocs (pip install '.[docs]'). A broken link, a
# missing anchor or a page that the menu lacks is an error.
set -eu
cd "$(dirname "$0")/.."
target=${1:-site}
case $target in /*) ;; *) target=$PWD/$target ;; esac
python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=python3
"$python" -c 'import mkdocs' 2>/dev/null || {
    echo "site.sh: mkdocs is not installed: pip install '.[docs]'" >&2
    exit 1
}
exec "$python" -m mkdocs build --quiet --strict --clean --config-file contrib/site/mkdocs.yml --site-dir "$target"

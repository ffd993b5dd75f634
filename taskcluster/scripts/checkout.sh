# The first command of every task on a worker: get the sources and run the given command there.
# It is part of the definitions (.taskcluster.yml has the same lines) since no sources are there yet.
set -euo pipefail
export TASK_WORKDIR="${TASK_WORKDIR:-$PWD}"
cd "$TASK_WORKDIR"
rm -rf checkout
git init --quiet checkout
git -C checkout fetch --quiet --depth 1 "$LIMBECK_REPOSITORY" "$LIMBECK_REVISION" ||
  git -C checkout fetch --quiet "$LIMBECK_REPOSITORY" "$LIMBECK_REF" ||
  { echo "the repository $LIMBECK_REPOSITORY cannot be fetched" >&2; exit 75; }
git -C checkout -c advice.detachedHead=false checkout --quiet "$LIMBECK_REVISION"
exec bash checkout/taskcluster/scripts/with-environment "$@"

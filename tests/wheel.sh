#!/bin/sh
# Install the built wheel in an empty environment and use it from an empty folder.
#
#   sh tests/wheel.sh DIST [SITE]
#
# SITE is a site-packages folder to take the dependencies from; without it pip installs them.
set -eu
dist=$(cd "$1" && pwd)
site=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
pip="$work/env/bin/python -m pip install --quiet --disable-pip-version-check"
if [ -n "$site" ]; then
    echo "$site" > "$("$work/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')/dependencies.pth"
    $pip --no-deps "$dist"/mechtests-*.whl
else
    $pip --constraint "$root/constraints.txt" torch
    $pip --constraint "$root/constraints.txt" "$dist"/mechtests-*.whl
fi
mkdir "$work/empty"
cd "$work/empty"
run="$work/env/bin/python -m pytest -p no:cacheprovider -q"

echo "== the package that is used comes from the wheel, with its claims"
"$work/env/bin/python" -c "
import mechtests, pathlib
from mechtests import shipped
assert 'env' in pathlib.Path(mechtests.__file__).parts, mechtests.__file__
assert shipped.folder('assertions').parts[-2:] == ('suite', 'assertions'), shipped.folder('assertions')
assert len(list(shipped.claims())) >= 4
"
echo "== pytest --pyargs plans the shipped claims"
$run --pyargs mechtests.suite.assertions -k ioi --model pythia-70m --mech-plan | grep "plan: [1-9][0-9]* verdicts"
echo "== so does the command"
"$work/env/bin/python" -m mechtests plan -q --model pythia-70m | grep "plan: [1-9][0-9]* verdicts"
echo "== the embedded family is there, and is judged with nothing else"
$run --pyargs mechtests.suite.assertions --model sprout-100k --mech-offline -k "checkpoints-differ or induction-present" --mech-fail-on error | grep "2 verdicts"
echo "== the command that a record keeps reaches its verdict again"
"$work/env/bin/python" - <<'EOF'
import json, pathlib, shlex, subprocess, sys
newest = max(pathlib.Path(".mechtests/runs").glob("*/records.jsonl"))
found = {tree["claim"]["id"]: tree["reproduce"] for tree in map(json.loads, newest.open())}
command = found["tigges2024.induction-present"]
print(command)
assert command.startswith("pytest --pyargs 'mechtests.suite.assertions.test_tigges2024_"), command
again = [*shlex.split(command), "-p", "no:cacheprovider", "-q", "--mech-offline"]
subprocess.run([sys.executable, "-m", *again], check=True)
EOF
echo "== a bare pytest says how to run them"
$run -k ioi --model pythia-410m > said.txt && exit 1
grep "pytest --pyargs mechtests.suite.assertions" said.txt
echo "== a claim of one's own works beside them"
cat > test_mine.py <<'EOF'
from mechtests import claim
from mechtests.metrics import behaviour
from mechtests.rules import above
from mechtests.tasks.ioi import ioi


@claim("mine.prefers-io", says="The indirect object is preferred.", task=ioi,
       needs={"answers": behaviour.answers(ioi)})
def test_the_indirect_object_is_preferred(measured, judge):
    """The mean logit difference on the evaluation half is above 0."""
    judge(above(measured.answers.sample("logit_difference", "evaluation"), 0, what="preference"))
EOF
$run test_mine.py --pyargs mechtests.suite.assertions -k ioi --model pythia-70m --mech-plan | grep "plan: [1-9][0-9]* verdicts"
echo "the wheel works"

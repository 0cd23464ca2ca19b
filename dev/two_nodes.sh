#!/usr/bin/env bash
# sudo bash dev/two_nodes.sh [FOLDER] [CASE …]
# Runs trainings and tools on two "nodes" of one process each: two network namespaces of this machine, joined by a virtual
# cable. Compares their results with those of one node, then kills a node, cuts the cable and slows it down, and says what
# happened. Needs root, iproute2 and the packages of the project; takes about 15 minutes on two cores. The cases: pretrain sit
# cache sample slow cut killed killed0 gone absent.
set -eu
HERE=$(dirname "$0")
A=usp-node0 B=usp-node1
FOLDER=${1:-work_dirs/two_nodes}
shift || true

clean() { for node in $A $B; do ip netns del "$node" 2>/dev/null || true; done; }
trap clean EXIT
clean
for node in $A $B; do ip netns add "$node"; done
ip link add veth0 netns $A type veth peer name veth0 netns $B
ip -n $A address add 10.77.0.1/24 dev veth0
ip -n $B address add 10.77.0.2/24 dev veth0
for node in $A $B; do
    ip -n "$node" link set veth0 up
    ip -n "$node" link set lo up
done

PYTHONPATH="$HERE/..:${PYTHONPATH:-}" python "$HERE/two_nodes.py" "$FOLDER" --nodes $A $B --cases "$@"

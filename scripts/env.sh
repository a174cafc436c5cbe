#!/bin/sh
# Writes .env with a random password for each variable of .env.example that is empty there; one that exists is left alone.
set -eu
cd "$(dirname "$0")/.."

if [ -e .env ]; then
    echo ".env is there and stays as it is; remove it for new passwords (the volumes remember the old ones)."
    exit 0
fi
umask 077
random() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }
while IFS= read -r line; do
    case $line in
    [A-Z]*=) echo "$line$(random)" ;;
    *) echo "$line" ;;
    esac
done <.env.example >.env
echo "Written to .env: a random password for each service. Grafana's user is admin."

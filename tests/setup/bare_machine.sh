#!/bin/sh
# Runs the setup script as on a Debian machine without python3-venv: it must fail and print the one command that mends it.
# A copy of the checkout's setup files is used, so the real .venv is not touched. usage: bare_machine.sh EMPTY_FOLDER
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
site=$1
real=$(python3 -c 'import sys; print(sys.executable)')

mkdir -p "$site/bin" "$site/checkout"
cp -R "$root/scripts" "$root/pyproject.toml" "$root"/requirements*.lock "$site/checkout/"

# The machine: Python without ensurepip, apt-get, and no uv.
cat >"$site/bin/python3" <<EOF
#!/bin/sh
case "\$*" in *ensurepip*) exit 1 ;; esac
exec "$real" "\$@"
EOF
printf '#!/bin/sh\nexit 1\n' >"$site/bin/apt-get"
chmod +x "$site/bin/python3" "$site/bin/apt-get"
for tool in sh dirname id sed touch rm env cat; do
    ln -sf "$(command -v "$tool")" "$site/bin/$tool"
done

if said=$(PATH="$site/bin" PYTHON=python3 sh "$site/checkout/scripts/setup.sh" 2>&1); then
    echo "the setup script did not fail without python3-venv" >&2
    exit 1
fi
case "$said" in
*"apt-get install -y python3."*-venv*) printf 'Without python3-venv the setup says:\n%s\n' "$said" ;;
*)
    printf 'the setup script failed without naming the command that mends it:\n%s\n' "$said" >&2
    exit 1
    ;;
esac

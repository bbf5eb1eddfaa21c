#!/usr/bin/env bash
# Install the programs that the tests use and Python packages cannot bring: a MariaDB server, a browser,
# and what the vendor's samples are written for. Only what is missing, and only where apt-get can; elsewhere say what
# to install.
set -euo pipefail

# program:Debian packages
wanted=(
    "mariadbd:mariadb-server-core mariadb-client-core"
    "node:nodejs"
    "npm:npm"
    "javac:default-jdk-headless"
    "curl:curl"
    "redis-server:redis-server"
    "chromium:chromium"
)
PATH="$PATH:/usr/sbin"
packages=()
for entry in "${wanted[@]}"; do
    if ! command -v "${entry%%:*}" > /dev/null; then
        read -ra needed <<< "${entry#*:}"
        packages+=("${needed[@]}")
    fi
done
((${#packages[@]})) || exit 0

as_root=()
((EUID == 0)) || as_root=(sudo --non-interactive)
if command -v apt-get > /dev/null && "${as_root[@]}" true 2> /dev/null; then
    echo "Installing ${packages[*]} ..."
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null
else
    echo "The tests need programs that are missing here. Their Debian packages: ${packages[*]}" >&2
fi

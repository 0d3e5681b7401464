#!/bin/sh
# Install the programs of Debian that the tests in tests/clients open our files with.
set -eu

command -v apt-get >/dev/null 2>&1 || exit 0

missing=""
for package in imagej libij-java default-jdk-headless chromium xvfb xauth; do
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null |
        grep -q "install ok installed" || missing="$missing $package"
done
# any JDK will do
command -v javac >/dev/null 2>&1 &&
    missing=$(echo "$missing" | sed 's/ default-jdk-headless//')
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    root=""
elif command -v sudo >/dev/null 2>&1; then
    root="sudo"
else
    echo "Tests that need these system packages are skipped:$missing" >&2
    exit 0
fi
echo "Installing system packages:$missing"
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends $missing >/dev/null

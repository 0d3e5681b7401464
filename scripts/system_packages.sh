#!/bin/sh
# Install what Qt and a virtual display need, where there is no screen and apt is there.
set -eu

if [ "${DEMO:-}" != headless ] && [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    exit 0
fi
command -v apt-get >/dev/null 2>&1 || exit 0

packages="xvfb libegl1 libgl1 libgl1-mesa-dri libopengl0 libglib2.0-0 libdbus-1-3
    libfontconfig1 fonts-dejavu-core libxkbcommon-x11-0 libxkbcommon0 libxcb-cursor0
    libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0
    libxcb-shape0 libxcb-xinerama0 libxcb-xkb1 libx11-xcb1"
"${PYTHON:-python3}" -c "import ensurepip, venv" 2>/dev/null ||
    packages="$packages python3-venv"

missing=""
for package in $packages; do
    # newer Debian and Ubuntu provide libglib2.0-0 as libglib2.0-0t64
    if ! dpkg-query -W -f '${Status}\n' "$package" "${package}t64" 2>/dev/null |
        grep -q "install ok installed"; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    root=""
elif command -v sudo >/dev/null 2>&1; then
    root="sudo"
else
    echo "These system packages are missing, ask an administrator:$missing" >&2
    exit 1
fi
echo "Installing system packages:$missing"
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends $missing >/dev/null

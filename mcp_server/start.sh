#!/bin/sh
# Starts the MCP server in an environment of its own, which uv makes from uv.lock at the first start of each version.
# What prevents that is said through MCP (refuse.sh): of a server that just dies the user sees "No such tool" and no reason.
root=$(cd "${0%/*}/.." && pwd)
data=${CLAUDE_PLUGIN_DATA:-${MLX_TRAINING_HOME:-$HOME/.mlx-training}}
# One environment for each lock file, so that sessions of an older version keep theirs.
place=$data/server-$(cksum <"$root/uv.lock" | tr ' ' -)
partial=$data/.server-$$
log=$data/.server-$$.log
limit=${MLX_TRAINING_START_SECONDS:-20} # Claude Code gives a server up after 30 s

serve() {
  find_uv # prepare_environment needs it
  touch "$place"
  exec "$place/bin/python" -I "$root/mcp_server/launch.py" mcp_server
}

refuse() {
  exec /bin/sh "$root/mcp_server/refuse.sh" "$1" "$place/bin/python"
}

find_uv() {
  # Programs with windows are not started from a shell, so their PATH lacks what a shell's profile adds.
  for each in "$UV" "$(command -v uv)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" /opt/homebrew/bin/uv /usr/local/bin/uv \
    "$data/uv/bin/uv"; do
    if [ -f "$each" ] && [ -x "$each" ]; then
      export UV="$each"
      return 0
    fi
  done
  return 1
}

fetch_uv() {
  for each in "$(command -v python3)" /opt/homebrew/bin/python3 /usr/local/bin/python3 /usr/bin/python3; do
    [ -x "$each" ] || continue
    # Without the command line tools Apple's is a stub that opens a dialog.
    [ "$each" = /usr/bin/python3 ] && [ "$(uname)" = Darwin ] && ! xcode-select -p >/dev/null 2>&1 && continue
    "$each" -m venv "$partial-uv" && "$partial-uv/bin/python" -m pip install --quiet --disable-pip-version-check uv &&
      { [ -d "$data/uv" ] || mv "$partial-uv" "$data/uv"; } && find_uv && return 0
  done
  echo "NO-UV"
  return 1
}

make_environment() {
  find_uv || fetch_uv || return 1
  UV_PROJECT_ENVIRONMENT=$partial UV_COMPILE_BYTECODE=1 "$UV" sync --project "$root" --frozen --no-dev --no-install-project \
    --quiet --no-progress || return 1
  # A rename into place: of two sessions that start at once the first wins, and neither sees half an environment.
  "$partial/bin/python" -I -c 'import os, sys; os.rename(sys.argv[1], sys.argv[2])' "$partial" "$place" 2>/dev/null
  # Environments that no session has started in for a month.
  find "$data" -maxdepth 1 -name 'server-*' -mtime +30 -exec rm -rf {} +
  [ -x "$place/bin/python" ]
}

remedy() {
  restart="then reconnect (/mcp) or restart Claude Code"
  said=$(tail -n 6 "$log" | tr '\n' ' ' | cut -c 1-400)
  case $said in
  *"No space left"* | *"os error 28"*) echo "the disk is full; free some space, $restart. $said" ;;
  *[Pp]"ermission denied"* | *"os error 13"* | *"ead-only file"*) echo "a folder can't be written; mend its permissions, $restart. $said" ;;
  *"error sending request"* | *"dns error"* | *"ailed to fetch"* | *"ailed to download"* | *"onnection"* | *"timed out"* | *"ertificate"* | *"nreachable"* | *"No matching distribution"*)
    echo "the package index could not be reached; check the network, proxy and certificates, $restart. $said" ;;
  *NO-UV*) echo "uv was not found and could not be fetched: install it (brew install uv, or curl -LsSf https://astral.sh/uv/install.sh | sh), $restart" ;;
  *) echo "uv could not make its environment; see what it said, $restart. $said" ;;
  esac
}

[ -x "$place/bin/python" ] && serve
mkdir -p "$data" 2>/dev/null && : 2>/dev/null >"$log" || refuse "the folder $data can't be written; mend its permissions, then restart Claude Code"
# Made with an interpreter that has gone since. (Never one that another session is just putting into place.)
[ -e "$place" ] && [ ! -x "$place/bin/python" ] && rm -rf "$place"
find "$data" -maxdepth 1 -name '.server-*' -mtime +1 -exec rm -rf {} + # of starts that were cut short

# In the background, so that a slow network costs this session its tools but not the work done so far.
{
  make_environment >"$log" 2>&1
  rm -rf "$partial" "$partial-uv"
  : >"$log.end"
} </dev/null &
waited=0
until [ -e "$log.end" ] || [ $waited -ge $((limit * 5)) ]; do
  sleep 0.2
  waited=$((waited + 1))
done
if [ -x "$place/bin/python" ]; then
  rm -f "$log" "$log.end"
  serve
elif [ -e "$log.end" ]; then
  reason=$(remedy)
  rm -f "$log" "$log.end"
  refuse "$reason"
fi
refuse "its environment is still being installed (first start); when that is done, reconnect (/mcp) or restart Claude Code"

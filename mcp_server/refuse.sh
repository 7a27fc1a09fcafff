#!/bin/sh
# A smallest MCP server, for a machine on which the real one can't start: one tool, whose answer says why and what to do.
#
#     refuse.sh REASON PYTHON      PYTHON: exists once the real server can start after all
LC_ALL=C
export LC_ALL
ready='The environment of mlx-training is installed now: reconnect (/mcp) or restart Claude Code.'
reason="mlx-training can't start: $(printf '%s' "$1" | tr '\\"\n\r\t' "/'   " | tr -d '\000-\037')"
name='{"name":"mlx","title":"MLX training","version":"0"}'
tool='{"name":"check_platform","title":"Check platform","description":"Says why the tools of mlx-training are not there and what to do about it.","inputSchema":{"type":"object","properties":{}},"annotations":{"title":"Check platform","readOnlyHint":true,"destructiveHint":false}}'

field() { # the last scalar of that name in the line
  printf '%s' "$line" | sed -En "s/.*\"$1\" *: *(\"[^\"]*\"|[0-9]+).*/\\1/p"
}

while IFS= read -r line; do
  id=$(field id)
  [ -n "$id" ] || continue # a notification
  [ -x "$2" ] && reason=$ready
  case $(field method) in
  '"initialize"') result="{\"protocolVersion\":$(field protocolVersion),\"capabilities\":{\"tools\":{}},\"serverInfo\":$name,\"instructions\":\"$reason\"}" ;;
  '"tools/list"') result="{\"tools\":[$tool]}" ;;
  '"tools/call"') result="{\"content\":[{\"type\":\"text\",\"text\":\"$reason\"}],\"isError\":true}" ;;
  '"ping"') result='{}' ;;
  *)
    printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"%s"}}\n' "$id" "$reason"
    continue
    ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done

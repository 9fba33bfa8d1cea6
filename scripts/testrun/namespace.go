package main

import "os/exec"

// ownRun is a script that runs a command with a /run of its own. The name service there stays.
const ownRun = `path=$(realpath /etc/resolv.conf)
text=$(cat /etc/resolv.conf)
mount -t tmpfs run /run || exit 125
case $path in
/run/*) mkdir -p "${path%/*}" && printf '%s\n' "$text" >"$path" ;;
esac
exec "$@"`

// inNamespace returns the words of a command that runs another one as root of a user namespace. Tests that keep
// state in /run/ublk-loop, mount, or look for root need that.
func inNamespace(words ...string) []string {
	return append([]string{"unshare", "--map-root-user", "--mount", "sh", "-c", ownRun, "sh"}, words...)
}

// hasNamespaces reports whether this user may have a user namespace with mounts.
func hasNamespaces() bool {
	words := inNamespace("true")
	return exec.Command(words[0], words[1:]...).Run() == nil
}

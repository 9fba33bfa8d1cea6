// Package mountpoint says what kind of mount a path is in.
package mountpoint

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Is reports whether path is the root of a mount.
func Is(path string) (bool, error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &stx); err != nil {
		return false, fmt.Errorf("stat %s: %w", path, err)
	}
	return stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// escapes are the characters that mountinfo writes as octal numbers (mangle in
// fs/proc_namespace.c).
var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")

// Fields splits a line of /proc/PID/mountinfo, or a part of one. Only a blank separates fields: a path can have a no-break space or
// a carriage return in it, which strings.Fields takes for the end of a field.
func Fields(line string) []string { return strings.Split(line, " ") }

// Unescape decodes a path in /proc/PID/mountinfo.
func Unescape(path string) string { return escapes.Replace(path) }

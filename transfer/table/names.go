package table

import (
	"fmt"
	"strings"
)

// Lengths of names without the final zero (linux/dm-ioctl.h).
const (
	maxName = 127 // DM_NAME_LEN
	maxUUID = 128 // DM_UUID_LEN
)

// checkName refuses names that device mapper refuses (check_name in
// drivers/md/dm-ioctl.c), that libdevmapper changes, and that a line cannot
// contain.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty: %w", ErrInvalid)
	case name == "." || name == ".." || name == "control":
		return fmt.Errorf("reserved: %w", ErrInvalid)
	case len(name) > maxName:
		return fmt.Errorf("longer than %d: %w", maxName, ErrSyntax)
	case strings.Contains(name, "/"):
		return fmt.Errorf("contains a slash: %w", ErrSyntax)
	case strings.ContainsFunc(name, func(r rune) bool { return !inNames(r) || r == '#' }):
		return fmt.Errorf("has other characters than letters, digits and +-.:=@_: %w", ErrInvalid)
	}
	return nil
}

// checkUUID is checkName for a UUID, which may be empty.
func checkUUID(uuid string) error {
	switch {
	case len(uuid) > maxUUID:
		return fmt.Errorf("longer than %d: %w", maxUUID, ErrSyntax)
	case strings.ContainsFunc(uuid, func(r rune) bool { return !inNames(r) }):
		return fmt.Errorf("has other characters than letters, digits and #+-.:=@_: %w", ErrInvalid)
	}
	return nil
}

// inNames reports whether libdevmapper leaves a character as it is
// (_is_whitelisted_char in libdm-common.c).
func inNames(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("#+-.:=@_", r)
}

package luks

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	// ErrNotLUKS is returned by Read if it finds neither a LUKS1 nor a LUKS2
	// header.
	ErrNotLUKS = errors.New("not a LUKS volume")
	// ErrDamaged is returned by Read if a header contradicts itself, or if both
	// copies have a wrong checksum.
	ErrDamaged = errors.New("LUKS header damaged")
	// ErrTooSmall is returned by Read if the device ends before the volume, for
	// example if it is a truncated copy.
	ErrTooSmall = errors.New("device ends before its LUKS volume")
	// ErrUnsupported is returned for a valid header that needs a feature that
	// this package lacks, such as another cipher.
	ErrUnsupported = errors.New("not supported")
	// ErrNoKeyslot is returned if there is no keyslot that may be tried.
	ErrNoKeyslot = errors.New("no keyslot holds the volume key")
	// ErrWrongPassphrase is returned by Unlock if it tried keyslots and none
	// opened.
	ErrWrongPassphrase = errors.New("wrong passphrase")
	// ErrLimit is returned by Unlock for a keyslot whose cost exceeds Limits.
	ErrLimit = errors.New("key derivation costs too much")
)

// maxQuoted is the maximum length of a header's string in an error or a Volume.
const maxQuoted = 64

// printable returns a string from a header in a form that is safe to print. It
// quotes and truncates strings that are too long or contain unprintable
// characters, so that no header can write to a terminal or fill a log.
func printable(s string) string {
	harmless := func(r rune) bool { return strconv.IsPrint(r) && r != utf8.RuneError }
	if len(s) <= maxQuoted && strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	return strconv.QuoteToASCII(s[:min(len(s), maxQuoted)])
}

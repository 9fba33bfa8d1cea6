package luks

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	// ErrNotLUKS is returned by Read where neither a LUKS1 nor any LUKS2 header
	// is found.
	ErrNotLUKS = errors.New("not a LUKS volume")
	// ErrDamaged is returned by Read for a header that fails its checksum, in
	// both copies, or that contradicts itself.
	ErrDamaged = errors.New("LUKS header damaged")
	// ErrTooSmall is returned by Read for a device that ends before the volume
	// does, as a copy that was cut short.
	ErrTooSmall = errors.New("device ends before its LUKS volume")
	// ErrUnsupported is returned for a sound header that asks for something
	// that this package does not do, such as another cipher.
	ErrUnsupported = errors.New("not supported")
	// ErrNoKeyslot is returned where no keyslot that may be tried is left.
	ErrNoKeyslot = errors.New("no keyslot holds the volume key")
	// ErrWrongPassphrase is returned by Unlock when no keyslot that could be
	// tried opened.
	ErrWrongPassphrase = errors.New("wrong passphrase")
	// ErrLimit is returned by Unlock for a keyslot that costs more than Limits
	// allow.
	ErrLimit = errors.New("key derivation costs too much")
)

// maxQuoted is how much of a string from a header an error or a Volume shows.
const maxQuoted = 64

// printable returns a string from a header as it may be shown: itself where
// that is harmless, else quoted and cut, so that no header writes to a
// terminal or fills a log.
func printable(s string) string {
	harmless := func(r rune) bool { return strconv.IsPrint(r) && r != utf8.RuneError }
	if len(s) <= maxQuoted && strings.IndexFunc(s, func(r rune) bool { return !harmless(r) }) < 0 {
		return s
	}
	return strconv.QuoteToASCII(s[:min(len(s), maxQuoted)])
}

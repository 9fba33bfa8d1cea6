package losetup

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// The sizes and errors are those of losetup 2.42.4, except that it rounds a fraction digit by
// digit: 1.25MiB is a byte less for it, and 1.999G a twentieth more.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "5": 5, " 5": 5, "+5": 5, "0x10": 16, "0X1fK": 31 << 10, "010": 8, "0K": 0,
		"1K": 1 << 10, "1k": 1 << 10, "1KiB": 1 << 10, "1Kib": 1 << 10, "1kib": 1 << 10, "1KB": 1000, "1Kb": 1000, "3G": 3 << 30, "1e": 1 << 60, "15E": 15 << 60,
		"1.5K": 1536, "1.K": 1024, "0.5M": 512 << 10, "1.5KB": 1500, "1.25MiB": 1310720, "1.05K": 1075, "1.08K": 1105, "0x1.5K": 1536, "1.999G": 2146409906, "1.5e": 3 << 59,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, error %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]unix.Errno{
		"": unix.EINVAL, "abc": unix.EINVAL, "-5": unix.EINVAL, " -5": unix.EINVAL, "08": unix.EINVAL, "1.5": unix.EINVAL, "1.": unix.EINVAL, ".5K": unix.EINVAL, "5B": unix.EINVAL,
		"1KIB": unix.EINVAL, "1X": unix.EINVAL, "1Kx": unix.EINVAL, "1 K": unix.EINVAL, "1\x8b": unix.EINVAL,
		"16E": unix.ERANGE, "1Z": unix.ERANGE, "1Y": unix.ERANGE, "18446744073709551616": unix.ERANGE, "15.99999999999999999999E": 0,
	} {
		if got, err := parseSize(text); want != 0 && !errors.Is(err, want) || want == 0 && err != nil {
			t.Errorf("%q: %d, error %v; want %v", text, got, err, want)
		}
	}
}

// No text makes the parser fail in another way than with an errno.
func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"", "1", "0x", "0x1.5K", "1.5KiB", "99999999999999999999", "0.1E"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseSize(text); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ERANGE) {
			t.Errorf("%q: error %v", text, err)
		}
	})
}

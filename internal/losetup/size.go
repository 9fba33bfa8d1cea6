package losetup

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sizeUnits are the units of a size. Each is 1000 or 1024 times the one before it.
const sizeUnits = "KMGTPEZY"

// parseSize parses a size as losetup does: a decimal, octal or hexadecimal number, with an
// optional fraction and unit. It returns EINVAL or ERANGE.
func parseSize(text string) (uint64, error) {
	text = strings.TrimLeft(text, " \t\n\v\f\r")
	text = strings.TrimPrefix(text, "+")
	number, rest, err := cutNumber(text)
	if err != nil || rest == "" {
		return number, err
	}
	fraction := ""
	if len(rest) > 1 && rest[0] == '.' {
		digits := len(rest) - 1 - len(strings.TrimLeft(rest[1:], "0123456789"))
		fraction, rest = rest[1:1+digits], rest[1+digits:]
	}
	base, power, err := unit(rest)
	if err != nil {
		return 0, err
	}
	factor := uint64(1)
	for range power {
		high, low := bits.Mul64(factor, base)
		if high != 0 {
			return 0, unix.ERANGE
		}
		factor = low
	}
	high, size := bits.Mul64(number, factor)
	part := partOf(fraction, factor)
	if high != 0 || size > math.MaxUint64-part {
		return 0, unix.ERANGE
	}
	return size + part, nil
}

// cutNumber parses the number that a text begins with.
func cutNumber(text string) (uint64, string, error) {
	digits, base := "0123456789", 10
	switch {
	case len(text) > 2 && (text[:2] == "0x" || text[:2] == "0X") && strings.Trim(text[2:3], "0123456789abcdefABCDEF") == "":
		digits, base, text = "0123456789abcdefABCDEF", 16, text[2:]
	case strings.HasPrefix(text, "0"):
		digits, base = "01234567", 8
	}
	end := len(text) - len(strings.TrimLeft(text, digits))
	number, err := strconv.ParseUint(text[:end], base, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, "", unix.ERANGE
	case err != nil:
		return 0, "", unix.EINVAL
	}
	return number, text[end:], nil
}

// unit returns the base and the power of a unit: K and KiB are 1024, KB is 1000.
func unit(text string) (base uint64, power int, err error) {
	if text == "" {
		return 0, 0, unix.EINVAL
	}
	base = 1024
	switch strings.ToLower(text[1:]) {
	case "", "ib":
		if len(text) > 1 && text[1] == 'I' {
			return 0, 0, unix.EINVAL
		}
	case "b":
		base = 1000
	default:
		return 0, 0, unix.EINVAL
	}
	power = strings.IndexByte(sizeUnits, text[0]&^0x20) + 1
	if power == 0 || text[0]&0x40 == 0 {
		return 0, 0, unix.EINVAL
	}
	return base, power, nil
}

// partOf returns a decimal fraction of a number, rounded down.
func partOf(fraction string, of uint64) uint64 {
	part := uint64(0)
	for i := len(fraction) - 1; i >= 0; i-- {
		part = (uint64(fraction[i]-'0')*of + part) / 10
	}
	return part
}

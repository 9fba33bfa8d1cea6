package verity

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// A UUID identifies a superblock. No digest covers it.
type UUID [16]byte

// NewUUID returns a random UUID (RFC 9562, version 4).
func NewUUID() UUID {
	var u UUID
	_, _ = rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// ParseUUID reads the text that String returns, in small or capital letters.
func ParseUUID(text string) (UUID, error) {
	var u UUID
	digits := strings.ReplaceAll(text, "-", "")
	if b, err := hex.DecodeString(digits); err == nil && len(b) == len(u) {
		copy(u[:], b)
		if u.String() == strings.ToLower(text) {
			return u, nil
		}
	}
	return UUID{}, fmt.Errorf("not a UUID: %w", ErrInvalid)
}

// String returns the UUID with its hyphens.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// ParseSalt reads a salt in hexadecimal digits; a hyphen is the empty salt, as
// in a table.
func ParseSalt(text string) ([]byte, error) {
	if text == "-" {
		return nil, nil
	}
	salt, err := hex.DecodeString(text)
	if err != nil || len(salt) == 0 || len(salt) > MaxSalt {
		return nil, fmt.Errorf("not 1 to %d bytes in hexadecimal digits: %w", MaxSalt, ErrInvalid)
	}
	return salt, nil
}

// ParseRoot reads a root hash in hexadecimal digits. Its length must be that of
// the digest of a supported hash.
func ParseRoot(text string) ([]byte, error) {
	root, err := hex.DecodeString(text)
	if err == nil {
		for _, a := range algorithms {
			if len(root) == a.size {
				return root, nil
			}
		}
	}
	return nil, fmt.Errorf("not 40, 64 or 128 hexadecimal digits: %w", ErrInvalid)
}

// Describe returns the lines of "veritysetup dump" and "veritysetup format" for
// a superblock and its tree, without the root hash and the size.
func Describe(s *Superblock, t *Tree) string {
	salt := "-"
	if len(s.Salt) > 0 {
		salt = hex.EncodeToString(s.Salt)
	}
	var b strings.Builder
	for _, line := range []struct {
		name  string
		value any
	}{
		{"UUID:            ", s.UUID},
		{"Hash type:       ", hashType},
		{"Data blocks:     ", s.DataBlocks},
		{"Data block size: ", s.DataBlockSize},
		{"Hash blocks:     ", t.HashBlocks()},
		{"Hash block size: ", s.HashBlockSize},
		{"Hash algorithm:  ", s.Algorithm},
		{"Salt:            ", salt},
	} {
		fmt.Fprintf(&b, "%s\t%v\n", line.name, line.value)
	}
	return b.String()
}

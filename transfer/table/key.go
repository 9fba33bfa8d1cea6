package table

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// A Key is the key of a crypt line: the name of a key in the kernel's
// keyrings, or the bytes themselves.
type Key struct {
	Bytes int // length
	// Description is the name of a key of type user. For a key from the text it is the name
	// under which the line is printed (DefaultDescription).
	Description string
	// Secret has the key from the text; nil for a key in a keyring.
	Secret *transfer.Secret
}

// DefaultDescription is the name under which the first key from the text is printed. The
// others have their number behind it, as in ublk-loop:2.
const DefaultDescription = "ublk-loop"

// nameKeys gives each key from the text a name of its own, which no key in a keyring has that
// the text names. The same text always gets the same names.
func (s *Stack) nameKeys() {
	taken := make(map[string]bool)
	var fromText []*Key
	for _, c := range Targets[*Crypt](s) {
		if c.Key.Secret != nil {
			fromText = append(fromText, &c.Key)
		} else {
			taken[c.Key.Description] = true
		}
	}
	number := 0
	for _, k := range fromText {
		number++
		for taken[keyName(number)] {
			number++
		}
		k.Description = keyName(number)
	}
}

// keyName returns the name for the key with a number.
func keyName(number int) string {
	if number == 1 {
		return DefaultDescription
	}
	return fmt.Sprintf("%s:%d", DefaultDescription, number)
}

// parse reads the argument for the key. No error contains the text.
func (k *Key) parse(b []byte, opts *Options) error {
	var err error
	switch {
	case string(b) == "-":
		err = fmt.Errorf("no key: %w", ErrInvalid)
	case b[0] == ':':
		err = k.parseReference(string(b[1:]))
	case !opts.KeysInText:
		err = ErrKeyInText
	default:
		err = k.parseHex(b)
	}
	if err != nil {
		k.Close()
		return &argumentError{"key", err}
	}
	return nil
}

// parseReference reads BYTES:TYPE:DESCRIPTION.
func (k *Key) parseReference(s string) error {
	parts := strings.SplitN(s, ":", 3)
	if len(parts) != 3 || parts[2] == "" {
		return fmt.Errorf("not :BYTES:user:DESCRIPTION: %w", ErrInvalid)
	}
	n, err := parseNumber(parts[0], 31)
	if err != nil {
		return fmt.Errorf("length: %w", err)
	}
	switch parts[1] {
	case "user":
	case "logon", "encrypted", "trusted":
		return fmt.Errorf("type %s, whose bytes a process cannot read: %w", parts[1], ErrUnsupported)
	default:
		return fmt.Errorf("unknown type: %w", ErrInvalid)
	}
	k.Bytes, k.Description = int(n), parts[2]
	return k.checkLength()
}

// parseHex reads hexadecimal digits, without a copy of them.
func (k *Key) parseHex(b []byte) error {
	k.Bytes = len(b) / 2
	if len(b)%2 != 0 {
		return fmt.Errorf("odd number of digits: %w", ErrInvalid)
	}
	if err := k.checkLength(); err != nil {
		return err
	}
	secret, err := transfer.NewSecret(k.Bytes)
	if err != nil {
		return err
	}
	k.Secret = secret
	if _, err := hex.Decode(secret.Bytes(), b); err != nil {
		return fmt.Errorf("not hexadecimal: %w", ErrInvalid)
	}
	return nil
}

// checkLength refuses lengths that aes-xts-plain64 does not have.
func (k *Key) checkLength() error {
	if k.Bytes == 48 {
		return fmt.Errorf("48 bytes, for AES-192: %w", ErrUnsupported)
	}
	if k.Bytes != 32 && k.Bytes != 64 {
		return fmt.Errorf("%d bytes, not 32 or 64: %w", k.Bytes, ErrInvalid)
	}
	return nil
}

func (k *Key) append(b []byte) []byte { return fmt.Appendf(b, ":%d:user:%s", k.Bytes, k.Description) }

// Close wipes a key from the text.
func (k *Key) Close() {
	if k.Secret != nil {
		k.Secret.Close()
		k.Secret = nil
	}
}

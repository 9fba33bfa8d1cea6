// Package rawname carries names through JSON. A name in Linux is a string of bytes, but a
// string in JSON is UTF-8.
//
// If the name is UTF-8, the member KEY has the name. Otherwise KEY has U+FFFD for each
// wrong byte, for people, and a member KEY_bytes has the whole name in base64, for
// programs. A reader prefers KEY_bytes. Messages for people have \xNN for each wrong
// byte.
package rawname

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bytes returns the value of KEY_bytes, or nil for a name in UTF-8.
func Bytes(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}

// Name returns the name for the members KEY and KEY_bytes.
func Name(text string, bytes []byte) string {
	if len(bytes) > 0 {
		return string(bytes)
	}
	return text
}

// Text returns a message in UTF-8.
func Text(message string) string {
	if utf8.ValidString(message) {
		return message
	}
	var text strings.Builder
	for len(message) > 0 {
		r, n := utf8.DecodeRuneInString(message)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&text, `\x%02x`, message[0])
		} else {
			text.WriteString(message[:n])
		}
		message = message[n:]
	}
	return text.String()
}

// String is a name in a message between processes of this program. Its JSON is in base64.
type String string

// MarshalJSON implements json.Marshaler.
func (s String) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(s)) }

// UnmarshalJSON implements json.Unmarshaler.
func (s *String) UnmarshalJSON(text []byte) error {
	var name []byte
	err := json.Unmarshal(text, &name)
	*s = String(name)
	return err
}

package xts

import (
	"bytes"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"
)

// vector is a test vector of testdata/ieee1619.txt.
type vector struct {
	number                string
	key                   []byte
	unit                  uint64
	plaintext, ciphertext []byte
}

// readVectors reads test vectors, which are paragraphs of "name value" lines.
func readVectors(t *testing.T) (vectors []vector) {
	t.Helper()
	text, err := os.ReadFile("testdata/ieee1619.txt")
	if err != nil {
		t.Fatal(err)
	}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		if strings.HasPrefix(paragraph, "#") {
			continue
		}
		fields := make(map[string]string)
		for line := range strings.SplitSeq(paragraph, "\n") {
			name, value, _ := strings.Cut(line, " ")
			fields[name] = value
		}
		unit, err := strconv.ParseUint(fields["unit"], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		vectors = append(vectors, vector{
			number:     fields["vector"],
			key:        unhex(t, fields["key1"]+fields["key2"]),
			unit:       unit,
			plaintext:  unhex(t, fields["plaintext"]),
			ciphertext: unhex(t, fields["ciphertext"]),
		})
	}
	return vectors
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIEEE1619Vectors(t *testing.T) {
	vectors := readVectors(t)
	if len(vectors) != 15 {
		t.Fatalf("%d vectors in testdata/ieee1619.txt, want 15", len(vectors))
	}
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		for _, v := range vectors {
			// newCipher would refuse vector 1, whose two keys are equal.
			c, err := expand(impl, make([]byte, ScheduleSize), v.key)
			if err != nil {
				t.Fatal(err)
			}
			buf := bytes.Clone(v.plaintext)
			c.Encrypt(buf, len(buf), v.unit, 0)
			if !bytes.Equal(buf, v.ciphertext) {
				t.Errorf("vector %s: ciphertext is\n%x, want\n%x", v.number, buf, v.ciphertext)
			}
			c.Decrypt(buf, len(buf), v.unit, 0)
			if !bytes.Equal(buf, v.plaintext) {
				t.Errorf("vector %s: plaintext is\n%x, want\n%x", v.number, buf, v.plaintext)
			}
		}
	})
}

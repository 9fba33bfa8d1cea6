package xts

import (
	"bytes"
	"testing"
)

// FuzzAgainstReference compares all implementations with the reference. The
// fuzzer chooses the key, the data, its alignment and the sector size.
func FuzzAgainstReference(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789ABCDEF"), make([]byte, 1024), uint16(31), uint64(0), uint64(1), uint8(0))
	f.Add([]byte("0123456789abcdef0123456789abcdef0123456789ABCDEF0123456789ABCDEF"), make([]byte, 4096), uint16(31), ^uint64(3), uint64(8), uint8(7))
	f.Fuzz(func(t *testing.T, key, data []byte, blocks uint16, iv, step uint64, offset uint8) {
		size := 16 * (int(blocks) + 1)
		count := len(data) / size
		start := int(offset)
		want := append(make([]byte, start), data[:count*size]...)
		for impl := generic; impl <= armv8; impl++ {
			if missing(impl) != "" {
				continue
			}
			c, err := newCipher(impl, make([]byte, ScheduleSize), key)
			if err != nil {
				t.Skip(err)
			}
			p := newPair(t, impl, key)
			got := bytes.Clone(want)
			c.Encrypt(got[start:], size, iv, step)
			p.decryptReference(got[start:], size, iv, step)
			if !bytes.Equal(got, want) {
				t.Fatalf("%v: the reference does not decrypt what Encrypt made", impl)
			}
			p.encryptReference(got[start:], size, iv, step)
			c.Decrypt(got[start:], size, iv, step)
			if !bytes.Equal(got, want) {
				t.Fatalf("%v: Decrypt does not decrypt what the reference made", impl)
			}
		}
	})
}

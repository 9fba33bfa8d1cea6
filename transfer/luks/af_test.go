package luks

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// merge undoes the split of LUKS1 2.4. The test implements the split by its
// formulas, and uses keys whose length is not a multiple of the digest, also with one byte
// more.
func TestMerge(t *testing.T) {
	for _, name := range []string{"sha1", "ripemd160", "sha256", "sha384", "sha512"} {
		newHash, err := hashNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{16, 21, 32, 33, 48, 49, 64, 65, 100} {
			want := bytes.Repeat([]byte{0x42}, size)
			material := make([]byte, 0, 3*size)
			d := make([]byte, size)
			for i := range 2 {
				s := bytes.Repeat([]byte{byte(i + 1)}, size)
				material = append(material, s...)
				xor(d, s)
				var next []byte
				for n := uint32(0); len(next) < size; n++ {
					h := newHash()
					from := int(n) * h.Size()
					h.Write(binary.BigEndian.AppendUint32(nil, n))
					h.Write(d[from:min(size, from+h.Size())])
					next = h.Sum(next)
				}
				d = next[:size]
			}
			xor(d, want)
			key := make([]byte, size)
			merge(key, append(material, d...), newHash())
			if !bytes.Equal(key, want) {
				t.Errorf("%s, %d bytes: %x", name, size, key)
			}
		}
	}
}

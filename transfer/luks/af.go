package luks

import (
	"encoding/binary"
	"hash"
)

// stripes is the number of stripes into which a key is split. The
// specifications allow no other number (LUKS1 4.1, LUKS2 3.2.4).
const stripes = 4000

// merge recovers a key from its split material, which is stripes times as long
// as the key (AFmerge with H1, LUKS1 2.4). The hash must be unused.
func merge(key, material []byte, h hash.Hash) {
	clear(key)
	for len(material) > len(key) {
		xor(key, material)
		diffuse(key, h)
		material = material[len(key):]
	}
	xor(key, material)
}

// diffuse divides d into pieces as long as a digest; the last piece may be
// shorter. It replaces each piece by the hash of its number and its content
// (H1, LUKS1 2.4.1).
func diffuse(d []byte, h hash.Hash) {
	sum := make([]byte, 0, h.Size())
	defer func() { clear(sum[:cap(sum)]) }()
	for i := uint32(0); len(d) > 0; i++ {
		piece := d[:min(len(d), h.Size())]
		h.Reset()
		h.Write(binary.BigEndian.AppendUint32(nil, i))
		h.Write(piece)
		copy(piece, h.Sum(sum))
		d = d[len(piece):]
	}
}

// xor sets dst to dst ⊕ src, for the length of dst.
func xor(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

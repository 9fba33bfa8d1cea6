package luks

import (
	"encoding/binary"
	"hash"
)

// stripes is how many times a key's size its split material has: the only
// number that the specifications allow (LUKS1 4.1, LUKS2 3.2.4).
const stripes = 4000

// merge recovers a key from its split material, which is stripes times as long
// (AFmerge with H1, LUKS1 2.4). The hash must be unused.
func merge(key, material []byte, h hash.Hash) {
	clear(key)
	for len(material) > len(key) {
		xor(key, material)
		diffuse(key, h)
		material = material[len(key):]
	}
	xor(key, material)
}

// diffuse replaces each piece of d, a digest long and the last one cut, by the
// hash of its number and itself (H1, LUKS1 2.4.1).
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

// xor sets dst to dst ⊕ src, as far as dst goes.
func xor(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

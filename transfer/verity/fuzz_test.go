package verity

import (
	"bytes"
	"testing"
)

// FuzzSuperblock reads arbitrary superblocks. What is accepted can be written
// again, and its tree has blocks where they belong.
func FuzzSuperblock(f *testing.F) {
	f.Add(goodSuperblock(f), uint64(0))
	for _, p := range geometries() {
		b, err := (&Superblock{Params: p}).Bytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, p.DataBlocks)
	}
	f.Fuzz(func(t *testing.T, b []byte, block uint64) {
		s, err := ParseSuperblock(b)
		if err != nil {
			return
		}
		again, err := s.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if read, err := ParseSuperblock(again); err != nil || !sameParams(read.Params, s.Params) || read.UUID != s.UUID {
			t.Errorf("%+v becomes %+v, %v", s, read, err)
		}
		tree, err := NewTree(s.Params, TreeOffset(0, s.HashBlockSize))
		if err != nil {
			return
		}
		if tree.Levels() > 18 { // 3 bits a level, for 53 bits
			t.Errorf("%d levels", tree.Levels())
		}
		for _, n := range []uint64{0, s.DataBlocks - 1, block % s.DataBlocks} {
			tree.expectPath(t, n)
		}
	})
}

// FuzzVerify changes data, tree, root hash and superblock of an image. Verify and
// Verifier agree with each other and with the reference, in bounded time.
func FuzzVerify(f *testing.F) {
	f.Add(uint8(0), uint8(0), uint8(0), uint16(20), []byte(nil), uint16(0), []byte(nil), uint16(0))
	f.Add(uint8(1), uint8(1), uint8(2), uint16(300), []byte{1}, uint16(1000), []byte(nil), uint16(0))
	f.Add(uint8(2), uint8(0), uint8(0), uint16(77), []byte(nil), uint16(0), []byte{0, 0, 1}, uint16(600))
	f.Fuzz(func(t *testing.T, hash, dataSize, hashSize uint8, blocks uint16, data []byte, dataAt uint16, tree []byte, treeAt uint16) {
		p := params(algorithms[hash%3].name, MinBlockSize<<(dataSize%3), MinBlockSize<<(hashSize%3), uint64(blocks%400)+1)
		m := buildImage(t, p, make([]byte, p.DataSize()), 0)
		root, _ := reference(p, m.data)
		if !bytes.Equal(root, m.root) {
			t.Fatalf("%+v: root hash %x, want %x", p, m.root, root)
		}
		wrongData, wrongHash := map[uint64]bool{}, map[uint64]bool{}
		change(m.data, data, int(dataAt), func(at int) { wrongData[uint64(at)/uint64(p.DataBlockSize)] = true })
		change(m.hash, tree, int(treeAt), func(at int) { wrongHash[uint64(at)/uint64(p.HashBlockSize)] = true })
		want := map[uint64]bool{}
		for block := range p.DataBlocks {
			wrong := wrongData[block]
			for level := range m.levels {
				wrong = wrong || wrongHash[m.above(block, level).Number]
			}
			want[block] = !wrong
		}
		m.expectReadable(t, func(block uint64) bool { return want[block] })
		for _, b := range m.verify(t) {
			switch {
			case b.Kind == DataMismatch && wrongData[b.Number]:
				delete(want, b.Number)
			case b.Kind == HashMismatch && wrongHash[b.Number]:
				for block := b.First; block < b.End; block++ {
					delete(want, block)
				}
			default:
				t.Errorf("%+v: %+v", p, b)
			}
		}
		for block, readable := range want {
			if !readable {
				t.Errorf("%+v: Verify does not report block %d", p, block)
			}
		}
	})
}

// change XORs bytes with others, and reports which bytes it has changed.
func change(b, with []byte, at int, changed func(at int)) {
	for i, c := range with {
		if c != 0 && at+i < len(b) {
			b[at+i] ^= c
			changed(at + i)
		}
	}
}

package verity

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"testing"
)

// Each bit flip in a data block is found in this block, and nowhere else.
func TestDamagedData(t *testing.T) {
	for _, p := range geometries() {
		m := newImage(t, p)
		for block := uint64(0); block < p.DataBlocks; block += 1 + p.DataBlocks/25 {
			b := m.dataBlock(block)
			at := int(block*37) % len(b)
			b[at] ^= 1 << (block % 8)
			want := []Bad{{Kind: DataMismatch, Number: block, Offset: block * uint64(p.DataBlockSize), Root: p.DataBlocks == 1}}
			if got := m.verify(t); !reflect.DeepEqual(got, want) {
				t.Errorf("%+v: block %d damaged: %+v", p, block, got)
			}
			b[at] ^= 1 << (block % 8)
		}
	}
}

// Each bit flip in a hash block is found: in the digests, their padding and the
// unused slots, on each level. Exactly the data blocks below cannot be read.
func TestDamagedHash(t *testing.T) {
	for _, p := range geometries() {
		m := newImage(t, p)
		for level, l := range m.levels {
			for i := uint64(0); i < l.count; i += 1 + l.count/5 {
				first := i << (m.shift * uint(level+1))
				end := min(p.DataBlocks, first+1<<(m.shift*uint(level+1)))
				hash := m.hashBlock(l.first + i)
				for _, at := range []int{m.algorithm.size - 1, m.slot - 1, len(hash) - 1} {
					hash[at] ^= 0x10
					want := Bad{
						Kind: HashMismatch, Number: l.first + i, Level: level, Offset: m.start + (l.first+i)*uint64(len(hash)),
						Root: level == len(m.levels)-1, First: first, End: end,
					}
					if got := m.verify(t); len(got) != 1 || got[0] != want {
						t.Errorf("%+v: byte %d of level %d: %+v, want %+v", p, at, level, got, want)
					}
					if at == len(hash)-1 { // slow, and the verifier looks only at the digest
						m.expectReadable(t, func(block uint64) bool { return block < first || block >= end })
					}
					hash[at] ^= 0x10
				}
			}
		}
	}
}

// readable reports whether a verifier accepts a data block.
func (m *image) readable(v *Verifier, block uint64) bool {
	p := v.Start(block)
	for {
		need, missing := v.Next(&p)
		if !missing {
			return v.CheckData(&p, m.dataBlock(block))
		}
		if !v.AddHash(&p, m.hash[need.Offset:][:m.params.HashBlockSize]) {
			return false
		}
	}
}

// expectReadable fails the test unless a verifier accepts the wanted blocks and
// no others, with caches of several sizes.
func (m *image) expectReadable(t *testing.T, want func(block uint64) bool) {
	t.Helper()
	for _, places := range []int{0, 3, 100} {
		v, err := NewVerifier(m.Tree, m.root, make([]byte, places*int(m.params.HashBlockSize)+1))
		if err != nil {
			t.Fatal(err)
		}
		for block := range m.params.DataBlocks {
			if got := m.readable(v, block); got != want(block) {
				t.Fatalf("%+v, %d places: block %d readable: %v", m.params, places, block, got)
			}
		}
	}
}

// Another salt, hash or root hash makes everything unreadable, which one block
// shows.
func TestDamagedSalt(t *testing.T) {
	for _, p := range geometries() {
		m := newImage(t, p)
		for what, change := range map[string]func(*Params){
			"salt":    func(p *Params) { p.Salt = []byte("7 Bytes") },
			"longer":  func(p *Params) { p.Salt = []byte("7 bytes\x00") },
			"no salt": func(p *Params) { p.Salt = nil },
		} {
			q := p
			change(&q)
			other := *m
			other.Tree, _ = NewTree(q, m.start)
			got := other.verify(t)
			if len(got) != 1 || !got[0].Root {
				t.Errorf("%+v: another %s: %+v", p, what, got)
			}
		}
		m.root = bytes.Clone(m.root)
		m.root[0] ^= 1
		if got := m.verify(t); len(got) != 1 || !got[0].Root {
			t.Errorf("%+v: another root hash: %+v", p, got)
		}
		m.expectReadable(t, func(uint64) bool { return false })
	}
}

// Damaged parameters in a superblock are found. For data of one block the size of
// hash blocks has no meaning.
func TestDamagedParameters(t *testing.T) {
	for _, p := range geometries() {
		m := newImage(t, p)
		for _, change := range []func(*Params){
			func(p *Params) {
				p.Algorithm = map[string]string{"sha256": "sha1", "sha1": "sha512", "sha512": "sha256"}[p.Algorithm]
			},
			func(p *Params) { p.DataBlockSize *= 2; p.DataBlocks = (p.DataBlocks + 1) / 2 },
			func(p *Params) { p.HashBlockSize *= 2 },
			func(p *Params) { p.DataBlocks++ },
			func(p *Params) { p.DataBlocks-- },
			func(p *Params) { p.DataBlocks /= 2 },
		} {
			q := p
			change(&q)
			if q.DataBlocks == 0 || p.DataBlocks == 1 && q.HashBlockSize != p.HashBlockSize {
				continue
			}
			if found, err := m.finds(q); !found {
				t.Errorf("%+v: not found: %+v, %v", p, q, err)
			}
		}
	}
}

// finds reports whether Verify finds that parameters are not the image's.
func (m *image) finds(q Params) (bool, error) {
	start := (m.start + uint64(q.HashBlockSize) - 1) / uint64(q.HashBlockSize) * uint64(q.HashBlockSize)
	tree, err := NewTree(q, start)
	if err != nil {
		return false, err
	}
	found := false
	err = tree.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash), m.root, func(Bad) bool {
		found = true
		return true
	})
	return found || err != nil, err
}

// Unused bytes that are not zero are reported once, even though their digests
// are right, and the data below stays readable.
func TestNotZero(t *testing.T) {
	m := newImage(t, params("sha1", 512, 512, 16*16*3))
	top := m.hashBlock(0)
	top[3*m.slot] = 1 // unused slot
	leaf := m.hashBlock(m.levels[0].first + 2)
	leaf[m.algorithm.size] = 1 // padding
	h := m.newHasher()
	middle := m.hashBlock(m.levels[1].first)
	copy(middle[2*m.slot:], h.digest(leaf))
	copy(top, h.digest(middle))
	m.root = bytes.Clone(h.digest(top))
	want := []Bad{
		{Kind: NotZero, Number: 0, Level: 2, Offset: m.start, Root: true, First: 0, End: m.params.DataBlocks},
		{Kind: NotZero, Number: m.levels[0].first + 2, Offset: m.start + (m.levels[0].first+2)*512, First: 32, End: 48},
	}
	if got := m.verify(t); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	m.expectReadable(t, func(uint64) bool { return true })
}

// Verify stops when it is told to, and returns errors of its readers.
func TestVerifyStops(t *testing.T) {
	m := newImage(t, params("sha256", 512, 512, 100))
	clear(m.data)
	calls := 0
	err := m.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash), m.root, func(Bad) bool {
		calls++
		return calls < 3
	})
	if err != nil || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
	all := func(Bad) bool { return true }
	err = m.Verify(bytes.NewReader(m.data[:1000]), bytes.NewReader(m.hash), m.root, all)
	expectErr(t, err, io.ErrUnexpectedEOF, "data block 0")
	err = m.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash[:len(m.hash)-1]), m.root, all)
	expectErr(t, err, io.ErrUnexpectedEOF, "hash block 7")
	err = m.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash), m.root[1:], all)
	expectErr(t, err, ErrInvalid, "root hash of 31 bytes")
}

// Verify reads the data once, and few hash blocks twice.
func TestVerifyReads(t *testing.T) {
	m := newImage(t, params("sha256", 4096, 512, 16*16*16))
	data, hash := &reader{ReaderAt: bytes.NewReader(m.data)}, &reader{ReaderAt: bytes.NewReader(m.hash)}
	if err := m.Verify(data, hash, m.root, func(Bad) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if data.bytes != len(m.data) || data.reads != len(m.data)/readSize {
		t.Errorf("%d reads of %d bytes of data", data.reads, data.bytes)
	}
	if n := int(m.HashBlocks()); hash.reads > n+n/10 {
		t.Errorf("%d reads of %d hash blocks", hash.reads, n)
	}
}

func TestBadString(t *testing.T) {
	for want, b := range map[string]Bad{
		"data block 5 at byte 20480 does not match the tree":                                                          {Kind: DataMismatch, Number: 5, Offset: 20480},
		"data block 0 at byte 0 does not match the root hash":                                                         {Kind: DataMismatch, Root: true},
		"hash block 3 (level 0) at byte 512 does not match the tree, so data blocks 128 to 255 cannot be checked":     {Kind: HashMismatch, Number: 3, Offset: 512, First: 128, End: 256},
		"hash block 0 (level 1) at byte 4096 does not match the root hash, so data blocks 0 to 255 cannot be checked": {Kind: HashMismatch, Level: 1, Offset: 4096, Root: true, End: 256},
		"hash block 3 (level 1) at byte 512 has unused bytes that are not zero":                                       {Kind: NotZero, Number: 3, Level: 1, Offset: 512, First: 128, End: 256},
	} {
		if got := fmt.Sprint(&b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

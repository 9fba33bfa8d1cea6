package verity

import (
	"bytes"
	"io"
	"testing"
)

// appended returns an image with its superblock and tree.
func appended(t testing.TB, p Params) []byte {
	t.Helper()
	data := bytes.Repeat([]byte{1}, int(p.DataSize()))
	m := buildImage(t, p, data, TreeOffset(p.DataSize(), p.HashBlockSize))
	sb, err := (&Superblock{Params: p}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, m.End())
	copy(all, m.hash)
	copy(all, data)
	copy(all[len(data):], sb)
	return all
}

func TestFindAppended(t *testing.T) {
	all := geometries()
	for _, sizes := range [][2]uint32{{512, 65536}, {65536, 512}, {4096, 4096}} {
		for n := uint64(1); n < 400; n += 57 {
			all = append(all, params("sha256", sizes[0], sizes[1], n))
		}
	}
	for _, p := range all {
		b := appended(t, p)
		r := &reader{ReaderAt: bytes.NewReader(b)}
		s, at, err := FindAppended(r, uint64(len(b)))
		if err != nil || at != p.DataSize() || !sameParams(s.Params, p) {
			t.Errorf("%+v: found %+v at %d, %v", p, s, at, err)
		}
		if r.reads > 20000 {
			t.Errorf("%+v: %d reads", p, r.reads)
		}
		b[at+72] ^= 1 // a number of blocks for another place
		if _, _, err := FindAppended(bytes.NewReader(b), uint64(len(b))); err == nil {
			t.Errorf("%+v: found with another number of blocks", p)
		}
	}
}

// No image and no size makes the search long, or fail.
func TestFindAppendedNothing(t *testing.T) {
	for _, size := range []uint64{0, 1, 511, 512, 1024, 4096, 12288, 1<<20 + 1, 1 << 30, 1<<63 - 1, 1<<63 - 512} {
		r := &reader{ReaderAt: zeros{}}
		_, _, err := FindAppended(r, size)
		expectErr(t, err, ErrNoSuperblock, "")
		if r.reads > 20000 {
			t.Errorf("%d bytes: %d reads", size, r.reads)
		}
	}
	_, _, err := FindAppended(bytes.NewReader(nil), 0)
	expectErr(t, err, ErrNoSuperblock, "")
	_, _, err = FindAppended(bytes.NewReader(nil), 16384)
	expectErr(t, err, io.ErrUnexpectedEOF, "")
}

package snapshot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"
)

// golden is the header that the kernel writes for chunks of 16 sectors.
const golden = "536e4170010000000100000010000000"

func TestHeader(t *testing.T) {
	want, _ := hex.DecodeString(golden)
	h := Header{Valid: true, Layout: layoutOf(t, 8<<10)}
	if got := h.Append(nil); !bytes.Equal(got, want) {
		t.Errorf("%x", got)
	}
	if got, err := ParseHeader(want); err != nil || got != h {
		t.Errorf("%+v, error %v", got, err)
	}
	want[4] = 0
	if got, err := ParseHeader(want); err != nil || got.Valid {
		t.Errorf("%+v, error %v", got, err)
	}
	h.Valid = false
	if got := h.Append(nil); !bytes.Equal(got, want) {
		t.Errorf("%x", got)
	}
}

func TestWrongHeaders(t *testing.T) {
	for _, c := range []struct {
		header string
		errs   []error
	}{
		{golden[:30], []error{io.ErrUnexpectedEOF}},
		{"00000000010000000100000010000000", []error{ErrNew, syscall.ENXIO}},
		{"536e4171010000000100000010000000", []error{ErrNoStore, syscall.ENXIO}},
		{"536e4170010000000000000010000000", []error{ErrVersion, syscall.EINVAL}},
		{"536e4170010000000200000010000000", []error{ErrVersion, syscall.EINVAL}},
		{"536e4170010000000100000000000000", []error{ErrChunkSize, syscall.EINVAL}},
		{"536e4170010000000100000004000000", []error{ErrChunkSize}},
		{"536e4170010000000100000011000000", []error{ErrChunkSize}},
		{"536e4170010000000100000000100000", []error{ErrChunkSize}},
		{"536e4170010000000100000010000080", []error{ErrChunkSize}}, // 16 if multiplied in 32 bits
	} {
		b, _ := hex.DecodeString(c.header)
		_, err := ParseHeader(b)
		for _, want := range c.errs {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", c.header, err, want)
			}
		}
	}
}

func TestIsStore(t *testing.T) {
	header := func(b []byte) io.ReaderAt { return bytes.NewReader(slices.Concat(b, make([]byte, HeaderBlock))) }
	store := Header{Layout: layoutOf(t, MinChunkSize)}.Append(nil)
	otherVersion := slices.Clone(store)
	otherVersion[atVersion]++
	for name, c := range map[string]struct {
		file io.ReaderAt
		want bool
		err  error
	}{
		"invalid store": {header(store), true, nil},
		"too short":     {bytes.NewReader(store), false, nil},
		"zeros":         {header(nil), false, nil},
		"data":          {header([]byte("data")), false, nil},
		"other version": {header(otherVersion), false, nil},
		"no chunk size": {header(store[:atChunkSize]), false, nil},
		"failed read":   {unreadable{}, false, syscall.EIO},
	} {
		if is, err := IsStore(c.file); is != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v, want %v, %v", name, is, err, c.want, c.err)
		}
	}
}

// unreadable is a file whose reads fail.
type unreadable struct{}

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, syscall.EIO }

package snapshot

import (
	"errors"
	"strings"
	"testing"
)

func TestLabel(t *testing.T) {
	for _, l := range []Label{
		{UUID: NewUUID(), OriginSize: 1 << 40, OriginPath: "/srv/base.img"},
		{UUID: NewUUID(), Frozen: true, OriginPath: strings.Repeat("x", MaxOriginPath), Parent: NewUUID()},
		{UUID: NewUUID(), Verity: true, OriginPath: "/srv/signed.img"},
		{UUID: NewUUID(), Frozen: true, Verity: true},
		{},
	} {
		block := make([]byte, HeaderBlock)
		h := Header{Valid: true, Layout: layoutOf(t, MinChunkSize)}
		h.Append(block[:0])
		for i := range block[atLabel:] { // of an older label
			block[atLabel+i] = 0xff
		}
		if err := l.Put(block); err != nil {
			t.Fatal(err)
		}
		got, err := ParseLabel(block)
		if err != nil || *got != l {
			t.Errorf("%+v, error %v, want %+v", got, err, l)
		}
		if again, err := ParseHeader(block); err != nil || again != h {
			t.Errorf("the label has changed the header: %+v, error %v", again, err)
		}
		for i := atLabel; i < atPath+len(l.OriginPath); i++ {
			block[i] ^= 1
			if _, err := ParseLabel(block); !errors.Is(err, ErrLabel) {
				t.Fatalf("byte %d is wrong: %v", i, err)
			}
			block[i] ^= 1
		}
	}
	if got, err := ParseLabel(make([]byte, HeaderBlock)); got != nil || err != nil {
		t.Errorf("store without a label: %+v, error %v", got, err)
	}
	long := Label{OriginPath: strings.Repeat("x", MaxOriginPath+1)}
	if err := long.Put(make([]byte, HeaderBlock)); !errors.Is(err, ErrLabel) {
		t.Error(err)
	}
}

func TestUUIDText(t *testing.T) {
	u := UUID{0: 0x12, 4: 0x34, 6: 0x56, 8: 0x78, 10: 0x9a, 15: 0xbc}
	if got := u.String(); got != "12000000-3400-5600-7800-9a00000000bc" {
		t.Error(got)
	}
	if a, b := NewUUID(), NewUUID(); a == b || a.IsZero() || !(UUID{}).IsZero() {
		t.Error("UUIDs are not random")
	}
}

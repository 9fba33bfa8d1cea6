package verity

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

// goodSuperblock returns a superblock with a salt of 32 bytes, for 4 blocks.
func goodSuperblock(t testing.TB) []byte {
	t.Helper()
	p := params("sha256", 4096, 1024, 4)
	p.Salt = bytes.Repeat([]byte{0xa5}, 32)
	b, err := (&Superblock{UUID: NewUUID(), Params: p}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each field is refused if it is hostile. The error says why.
func TestParseSuperblockHostile(t *testing.T) {
	put16 := func(at int, v uint16) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint16(b[at:], v) }
	}
	put32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) }
	}
	put64 := func(at int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[at:], v) }
	}
	text := func(s string) func([]byte) { return func(b []byte) { copy(b[32:64], s) } }
	for _, tt := range []struct {
		what   string
		change func([]byte)
		want   error
	}{
		{"no verity superblock", func(b []byte) { b[0] = 'V' }, ErrNoSuperblock},
		{"no verity superblock", func(b []byte) { b[7] = 1 }, ErrNoSuperblock},
		{"version 0", put32(8, 0), ErrUnsupported},
		{"version 2", put32(8, 2), ErrUnsupported},
		{"hash type 0", put32(12, 0), ErrUnsupported},
		{"hash type 4294967295", put32(12, math.MaxUint32), ErrUnsupported},
		{`hash "sha384"`, text("sha384"), ErrUnsupported},
		{`hash "sha256-ni"`, text("sha256-ni"), ErrUnsupported},
		{`hash ""`, text("\x00\x00\x00\x00\x00\x00"), ErrUnsupported},
		{`hash "\x1b[31m"`, text("\x1b[31m\x00"), ErrUnsupported},
		{`hash "\ufffd\ufffd`, text(strings.Repeat("\xff", 32)), ErrUnsupported},
		{"unused bytes", text("sha256\x00x"), ErrInvalid},
		{"data block size 0", put32(64, 0), ErrInvalid},
		{"data block size 256", put32(64, 256), ErrInvalid},
		{"data block size 4097", put32(64, 4097), ErrInvalid},
		{"data block size 1048576", put32(64, 1<<20), ErrInvalid},
		{"data block size 2147483648", put32(64, 1<<31), ErrInvalid},
		{"hash block size 0", put32(68, 0), ErrInvalid},
		{"hash block size 256", put32(68, 256), ErrInvalid},
		{"hash block size 1536", put32(68, 1536), ErrInvalid},
		{"hash block size 1048576", put32(68, 1<<20), ErrInvalid},
		{"no data blocks", put64(72, 0), ErrInvalid},
		{"2^63 bytes", put64(72, 1<<51), ErrTooLarge},
		{"2^63 bytes", put64(72, math.MaxUint64), ErrTooLarge},
		{"salt of 257 bytes", put16(80, 257), ErrInvalid},
		{"salt of 65535 bytes", put16(80, math.MaxUint16), ErrInvalid},
		{"unused bytes", put16(80, 31), ErrInvalid},
		{"unused bytes", func(b []byte) { b[82] = 1 }, ErrInvalid},
		{"unused bytes", func(b []byte) { b[87] = 1 }, ErrInvalid},
		{"unused bytes", func(b []byte) { b[88+32] = 1 }, ErrInvalid},
		{"unused bytes", func(b []byte) { b[344] = 1 }, ErrInvalid},
		{"unused bytes", func(b []byte) { b[511] = 1 }, ErrInvalid},
	} {
		b := goodSuperblock(t)
		tt.change(b)
		_, err := ParseSuperblock(b)
		expectErr(t, err, tt.want, tt.what)
	}
	_, err := ParseSuperblock(goodSuperblock(t)[:511])
	expectErr(t, err, ErrNoSuperblock, "")
}

// What the format just allows is accepted.
func TestParseSuperblockLimits(t *testing.T) {
	for _, p := range []Params{
		{"sha1", 512, 512 << 10, 1, nil},
		{"sha512", 512 << 10, 512, 1<<44 - 1, make([]byte, 256)},
		{"sha256", 4096, 4096, 1<<51 - 1, []byte{1}},
	} {
		b, err := (&Superblock{Params: p}).Bytes()
		if err != nil {
			t.Fatal(err)
		}
		s, err := ParseSuperblock(append(b, 1, 2, 3)) // what follows does not matter
		if err != nil || !sameParams(s.Params, p) {
			t.Errorf("%+v: read %+v, %v", p, s, err)
		}
	}
	b := goodSuperblock(t)
	copy(b[32:], "SHA256")
	if s, err := ParseSuperblock(b); err != nil || s.Algorithm != "sha256" {
		t.Errorf("capital letters: %+v, %v", s, err)
	}
}

// Bytes refuses what ParseSuperblock refuses.
func TestSuperblockBytesRefuses(t *testing.T) {
	for text, p := range map[string]Params{
		"salt of 257":     {"sha256", 512, 512, 1, make([]byte, 257)},
		"hash \"SHA256\"": {"SHA256", 512, 512, 1, nil},
		"no data blocks":  {"sha256", 512, 512, 0, nil},
	} {
		if _, err := (&Superblock{Params: p}).Bytes(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v, want %q", p, err, text)
		}
	}
}

// expectRandom fails the test unless all bits of new UUIDs are independent, but
// for those of the version.
func expectRandom(t *testing.T) {
	t.Helper()
	var set, clear, pairs UUID
	for range 200 {
		u := NewUUID()
		for i := range u {
			set[i] |= u[i]
			clear[i] |= ^u[i]
			pairs[i] |= u[i] ^ u[(i+1)%len(u)]
		}
	}
	for i := range set {
		want, mask := byte(0xff), byte(0xff)
		switch i {
		case 6:
			want, mask = 0x4f, 0x0f
		case 8:
			want, mask = 0xbf, 0x3f
		}
		if set[i] != want || clear[i] != ^want|mask || pairs[i]&mask != mask {
			t.Errorf("byte %d: set %#x, clear %#x, differ from the next %#x", i, set[i], clear[i], pairs[i])
		}
	}
}

func TestTexts(t *testing.T) {
	u, err := ParseUUID("00112233-4455-6677-8899-AABBCCDDEEFF")
	if err != nil || u.String() != goldenUUID {
		t.Errorf("%v, %v", u, err)
	}
	expectRandom(t)
	for _, text := range []string{"", "00112233445566778899aabbccddeeff", goldenUUID + "0", "0011223-34455-6677-8899-aabbccddeeff", goldenUUID[:35] + "x"} {
		_, err := ParseUUID(text)
		expectErr(t, err, ErrInvalid, "not a UUID")
	}
	for text, want := range map[string]string{"-": "", "00": "\x00", "aAfF": "\xaa\xff"} {
		if salt, err := ParseSalt(text); err != nil || string(salt) != want {
			t.Errorf("salt %q: %x, %v", text, salt, err)
		}
	}
	for _, text := range []string{"", "0", "0x", "--", strings.Repeat("00", 257)} {
		_, err := ParseSalt(text)
		expectErr(t, err, ErrInvalid, "1 to 256 bytes")
	}
	for _, digits := range []int{40, 64, 128} {
		if root, err := ParseRoot(strings.Repeat("a", digits)); err != nil || len(root) != digits/2 {
			t.Errorf("root hash of %d digits: %x, %v", digits, root, err)
		}
	}
	for _, text := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		_, err := ParseRoot(text)
		expectErr(t, err, ErrInvalid, "hexadecimal digits")
	}
}

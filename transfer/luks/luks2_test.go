package luks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// damage flips a bit in a copy of the header.
func (m image) damage(at ...int) image {
	m = m.clone()
	for _, i := range at {
		m.data[i] ^= 1
	}
	return m
}

// If one copy is damaged, at any field, the volume opens with the other copy.
func TestReadDamagedCopy(t *testing.T) {
	m := luks2(t)
	places := map[string]int{
		"magic": 3, "version": 7, "size": 12, "sequence": 20, "label": 30, "checksum algorithm": 74, "salt": 110,
		"uuid": 170, "offset": 262, "padding": 300, "checksum": 450, "padding to 4096": 4000,
		"JSON": 4200, "the end": fixtureSize - 1,
	}
	for name, at := range places {
		t.Run(name, func(t *testing.T) {
			for offset, wantSecondary := range map[int]bool{0: true, fixtureSize: false} {
				_, v := m.damage(offset + at).mustRead(t)
				if v.Secondary != wantSecondary {
					t.Errorf("copy at %d damaged: secondary %t", offset, v.Secondary)
				}
			}
			_, err := m.damage(at, fixtureSize+at).read()
			switch name {
			case "version", "checksum algorithm": // the changed value is unknown
				expectErr(t, err, ErrUnsupported)
			case "magic":
				expectErr(t, err, ErrNotLUKS)
			default:
				expectErr(t, err, ErrDamaged)
			}
		})
	}
	m.damage(12).expectKey(t, first, key64)
}

// If the primary header is gone, a secondary header is found at each valid
// offset, and at no other offset.
func TestReadFindsSecondary(t *testing.T) {
	m := luks2(t)
	for _, size := range []int{
		16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20,
	} {
		_, v := moved(t, m, size, size).mustRead(t)
		if !v.Secondary || v.UUID == "" {
			t.Errorf("at %#x: %+v", size, v)
		}
	}
	for _, size := range []int{0x2000, 0x6000, 0x14000, 8 << 20} {
		_, err := moved(t, m, size, size).read()
		expectErr(t, err, ErrNotLUKS)
	}
	_, err := moved(t, m, 0x8000, 0x4000).read()
	expectErr(t, err, ErrDamaged)
	_, err = moved(t, m, 0x4000, 0x8000).read()
	expectErr(t, err, ErrDamaged)
}

// moved returns a volume with only a secondary header of a given size and
// offset. Its keyslot and data follow the header.
func moved(t *testing.T, m image, size, at int) image {
	t.Helper()
	json := m.edit(t, func(root node) {
		root.at("config")["json_size"] = fmt.Sprint(size - luks2BinarySize)
		root.at("keyslots", "0", "area")["offset"] = fmt.Sprint(2 * size)
		root.at("segments", "0")["offset"] = fmt.Sprint(2*size + 1<<20)
	}).json()
	data := make([]byte, at+size)
	b := data[at:]
	copy(b, m.data[fixtureSize:][:luks2BinarySize])
	binary.BigEndian.PutUint64(b[8:], uint64(size))
	binary.BigEndian.PutUint64(b[256:], uint64(at))
	copy(b[luks2BinarySize:], json)
	seal(b)
	return image{data, 32 << 20}
}

// If both copies are valid, the copy with the higher sequence id is used, or
// the primary copy if the ids are equal.
func TestReadNewestCopy(t *testing.T) {
	m := luks2(t).clone()
	copy(m.data[24:], "primary\x00")
	copy(m.data[fixtureSize+24:], "secondary\x00")
	for _, test := range []struct {
		primary, secondary uint64
		want               string
	}{{5, 5, "primary"}, {6, 5, "primary"}, {5, 6, "secondary"}, {1, 1 << 63, "secondary"}} {
		m.setSequence(0, test.primary)
		m.setSequence(fixtureSize, test.secondary)
		if _, v := m.mustRead(t); v.Label != test.want || v.Secondary != (test.want == "secondary") {
			t.Errorf("%d and %d: %+v, want the %s", test.primary, test.secondary, v, test.want)
		}
	}
	// A newer but invalid copy is not used.
	m.setSequence(fixtureSize, 9)
	m.data[fixtureSize+5000]++
	if _, v := m.mustRead(t); v.Label != "primary" {
		t.Errorf("a damaged copy was taken: %+v", v)
	}
}

// A copy is refused for each of these faults although its checksum is correct.
func TestReadSealedNonsense(t *testing.T) {
	sound := luks2(t).json()
	tests := map[string]struct {
		change func(b []byte)
		want   error
	}{
		"size not of the table": {func(b []byte) { b[13] = 1 }, ErrDamaged},
		"size of all bits":      {func(b []byte) { copy(b[8:16], bytes.Repeat([]byte{255}, 8)) }, ErrDamaged},
		"offset":                {func(b []byte) { b[262] ^= 0x20 }, ErrDamaged},
		"label without end":     {func(b []byte) { copy(b[24:72], bytes.Repeat([]byte{'x'}, 48)) }, ErrDamaged},
		"uuid without end":      {func(b []byte) { copy(b[168:208], bytes.Repeat([]byte{'x'}, 40)) }, ErrDamaged},
		"checksum algorithm":    {func(b []byte) { copy(b[72:], "md5\x00") }, ErrUnsupported},
		"version":               {func(b []byte) { b[7] = 9 }, ErrUnsupported},
		"text after the JSON":   {func(b []byte) { b[len(b)-1] = '}' }, ErrDamaged},
		"JSON without end":      {func(b []byte) { fill(b[luks2BinarySize:], ' ') }, ErrDamaged},
		"no JSON":               {func(b []byte) { clear(b[luks2BinarySize:]) }, ErrDamaged},
		"JSON array":            {func(b []byte) { copy(b[luks2BinarySize:], "[]\x00") }, ErrDamaged},
		"space before the JSON": {func(b []byte) { clear(b[luks2BinarySize:]); copy(b[luks2BinarySize:], append([]byte{' '}, sound...)) }, ErrDamaged},
		"two JSON texts":        {func(b []byte) { clear(b[luks2BinarySize:]); copy(b[luks2BinarySize:], "{}{}") }, ErrDamaged},
		"nested too deep":       {func(b []byte) { fill(b[luks2BinarySize:len(b)-1], '{') }, ErrDamaged},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := luks2(t).clone()
			for _, at := range []int{0, fixtureSize} {
				b := m.data[at:][:fixtureSize]
				test.change(b)
				seal(b)
			}
			_, err := m.read()
			expectErr(t, err, test.want)
		})
	}
}

func fill(b []byte, with byte) {
	for i := range b {
		b[i] = with
	}
}

func TestReadOther(t *testing.T) {
	for _, size := range []int64{-1, 0, 1, 591, 592, 4095, 4096, 1 << 20, 1<<63 - 1} {
		_, err := Read(image{nil, size}, size)
		expectErr(t, err, ErrNotLUKS)
	}
	_, err := image{luks2(t).data, fixtureSize - 1}.read()
	expectErr(t, err, ErrTooSmall)
	m := luks2(t)
	m.size = luks2BinarySize
	if _, err := m.read(); err == nil || !strings.HasSuffix(err.Error(), "a header of 16384 bytes at 0") {
		t.Errorf("%v does not tell of the header", err)
	}
}

// A JSON area of 4 MiB full of members uses at most a fixed multiple of its
// size.
func TestReadManyMembers(t *testing.T) {
	const size = 4 << 20
	b := make([]byte, size)
	copy(b, luks2(t).data[:luks2BinarySize])
	binary.BigEndian.PutUint64(b[8:], size)
	text := []byte(`{"config":{}`)
	for i := 0; len(text) < size-luks2BinarySize-20; i++ {
		text = fmt.Appendf(text, `,"%x":0`, i)
	}
	copy(b[luks2BinarySize:], append(text, '}'))
	seal(b)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := image{b, 16 << 20}.read()
	runtime.ReadMemStats(&after)
	expectErr(t, err, ErrDamaged)
	if got := after.TotalAlloc - before.TotalAlloc; got > 200<<20 {
		t.Errorf("%d MiB allocated", got>>20)
	}
}

// JSON in a 4 MiB area, nested as deeply as encoding/json accepts, is refused
// without harm.
func TestReadDeepJSON(t *testing.T) {
	for _, depth := range []int{100, 9990, 20000, 1 << 20} {
		const size = 4 << 20
		b := make([]byte, size)
		copy(b, luks2(t).data[:luks2BinarySize])
		binary.BigEndian.PutUint64(b[8:], size)
		copy(b[luks2BinarySize:], `{"config":`)
		text := b[luks2BinarySize+len(`{"config":`):]
		fill(text[:depth], '[')
		fill(text[depth:2*depth], ']')
		text[2*depth] = '}'
		seal(b)
		_, err := image{b, 16 << 20}.read()
		expectErr(t, err, ErrDamaged)
	}
}

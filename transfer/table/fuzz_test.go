package table

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

// FuzzParse parses arbitrary text. It fails if a parsed stack changes when it is
// printed and parsed again, if an error breaks its promises, or if the memory is
// out of proportion.
func FuzzParse(f *testing.F) {
	for _, tt := range accepted {
		f.Add([]byte(withDevices(tt.text, disk512, disk4096)))
	}
	for _, tt := range stricter {
		f.Add([]byte(withDevices(tt.text, disk512, disk4096)))
	}
	for _, tt := range verityStacks {
		f.Add([]byte(withDevices(tt.text, disk512, disk4096)))
	}
	for _, tt := range acceptedStacks {
		f.Add([]byte(inStack(tt.text, disk512, disk4096, testMajor)))
	}
	for _, tt := range refusedStacks {
		f.Add([]byte(inStack(tt.text, disk512, disk4096, testMajor)))
	}
	f.Add([]byte("0 8 crypt aes-xts-plain64 " + hexKey + " 0 /dev/a 0"))
	f.Add([]byte("0 8 " + hexKey[len(hexKey)-maxDigits:]))
	f.Add([]byte("0 8 /" + hexKey))
	f.Add([]byte(`0 8 /"` + hexKey))
	f.Add([]byte("\x80" + hexKey[:maxDigits] + "X,"))
	f.Fuzz(func(t *testing.T, text []byte) {
		original := bytes.Clone(text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := Parse(text, Options{KeysInText: true, DeviceMapperMajor: testMajor})
		runtime.ReadMemStats(&after)
		if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+1000*len(text)); got > limit {
			t.Errorf("%d bytes allocated for %d bytes of text", got, len(text))
		}
		if !bytes.Equal(text, original) {
			t.Error("text changed")
		}
		if err != nil {
			checkError(t, string(text), err)
			return
		}
		defer s.Close()
		checkRoundTrip(t, s)
		checkWithDevices(t, s)
	})
}

// checkRoundTrip prints a stack, reads it, and prints it again, in each format.
func checkRoundTrip(t *testing.T, s *Stack) {
	t.Helper()
	opts := Options{DeviceMapperMajor: testMajor} // a printed table has no keys
	printed := s.Concise()
	if s.Tables[0].Name == "" {
		printed = s.Tables[0].String()
	}
	again, err := Parse([]byte(printed), opts)
	if err != nil {
		t.Fatalf("printed as %q, which is refused: %v", printed, err)
	}
	got := again.Concise()
	if again.Tables[0].Name == "" {
		got = again.Tables[0].String()
	}
	if got != printed {
		t.Errorf("printed as %q, then as %q", printed, got)
	}
	if a, b := strings.Join(s.Devices(), "\n"), strings.Join(again.Devices(), "\n"); a != b {
		t.Errorf("devices %q, then %q", a, b)
	}
	for i := range s.Tables {
		a, b := &s.Tables[i], &again.Tables[i]
		if a.Name != b.Name || a.UUID != b.UUID || a.Minor != b.Minor || a.ReadOnly != b.ReadOnly || a.String() != b.String() {
			t.Errorf("table %+v became %+v", a, b)
		}
	}
}

// checkWithDevices checks a stack against devices of several sizes, and that
// what fits is consistent.
func checkWithDevices(t *testing.T, s *Stack) {
	t.Helper()
	for _, size := range []DeviceSize{{0, 512}, {8, 512}, {sectorsOfDisks, 4096}, {MaxSectors, 512}, {MaxSectors &^ 7, 4096}} {
		sizes := make([]DeviceSize, len(s.Devices()))
		for i := range sizes {
			sizes[i] = size
		}
		got, err := s.CheckDevices(sizes)
		if err != nil {
			checkError(t, s.Concise(), err)
			continue
		}
		unit := uint64(got.Block / sectorSize)
		if got.Block < sectorSize || got.Sectors == 0 || got.Sectors > MaxSectors || got.Sectors%unit != 0 {
			t.Errorf("size %+v", got)
		}
	}
}

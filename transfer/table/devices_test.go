package table

import (
	"errors"
	"slices"
	"testing"
)

func TestDevices(t *testing.T) {
	s, err := parseStack(t, inStack("a,,4,,0 8 linear $B 0,8 8 linear $A 8;b,,,,0 8 linear $M:4 0,8 24 striped 3 8 $A 0 /dev/mapper/a 0 $B 8,32 8 error $A 0", disk512, disk4096, testMajor))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Devices(); !slices.Equal(got, []string{disk4096, disk512}) {
		t.Errorf("devices %q", got)
	}
	for device, want := range map[string]int{"/dev/mapper/a": 0, "/dev/mapper/b": 1, "253:4": 0, disk512: -1, "254:4": -1, "253:5": -1, "/dev/mapper/": -1, "/dev/mapper/c": -1} {
		if i, ok := s.Table(device); ok != (want >= 0) || ok && i != want {
			t.Errorf("%s is table %d, %v", device, i, ok)
		}
	}
}

// Without the major number no number is a table; without a name no path is.
func TestNoTables(t *testing.T) {
	s, err := Parse([]byte("0 8 linear 0:5 0\n8 8 linear /dev/mapper/ 0"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Devices(); !slices.Equal(got, []string{"0:5", "/dev/mapper/"}) {
		t.Errorf("devices %q", got)
	}
}

// If the major number is unknown, number 0 does not refer to a table.
func TestNoMajor(t *testing.T) {
	s, err := Parse([]byte("a,,5,,0 8 zero;b,,,,0 8 linear 0:5 0,8 8 linear /dev/mapper/a 0"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Devices(); !slices.Equal(got, []string{"0:5"}) {
		t.Errorf("devices %q", got)
	}
}

// The size and block of a stack come from its last table, and blocks from below.
func TestCheckDevices(t *testing.T) {
	for text, want := range map[string]DeviceSize{
		"0 8 zero":                   {8, 512},
		"0 8 linear $A 0":            {8, 512},
		"0 8 linear $B 0":            {8, 4096},
		"0 8 zero\n8 8 linear $B 0":  {16, 4096},
		"0 8 error $B 0":             {8, 4096},
		"0 16 striped 2 8 $A 0 $B 0": {16, 4096},
		"a,,,,0 16 linear $B 0;b,,,,0 8 linear /dev/mapper/a 8":                                       {8, 4096},
		"0 6 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:1024":                                      {6, 1024},
		"0 8 crypt aes-xts-plain64 $K 0 $B 0 1 sector_size:1024":                                      {8, 4096},
		"a,,,,0 8 crypt aes-xts-plain64 $K 0 $A 0 1 sector_size:2048;b,,,,0 4 linear /dev/mapper/a 4": {4, 2048},
	} {
		text = inStack(text, disk512, disk4096, testMajor)
		s, err := Parse([]byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		var sizes []DeviceSize
		for _, d := range s.Devices() {
			sizes = append(sizes, deviceSizes[d])
		}
		if got, err := s.CheckDevices(sizes); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// An area may end at the last sector that any device can have, and no later.
func TestLargestArea(t *testing.T) {
	for text, want := range map[string]error{
		"0 8 linear /dev/a 18014398509481975": nil,
		"0 8 linear /dev/a 18014398509481976": ErrInvalid,
		"0 18014398509481983 linear /dev/a 0": nil,
		"0 18014398509481983 linear /dev/a 1": ErrInvalid,
	} {
		s, err := Parse([]byte(text), Options{})
		if !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil {
			continue
		}
		if _, err := s.CheckDevices([]DeviceSize{{MaxSectors, 512}}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := s.CheckDevices([]DeviceSize{{MaxSectors - 1, 512}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q on a smaller device: %v", text, err)
		}
	}
}

// An error about a device names it.
func TestCheckDevicesMessage(t *testing.T) {
	_, err := parseStack(t, "a,,,,0 8 zero,8 8 linear "+disk4096+" 4")
	const want = `table a: line 2: linear: device "/dev/disk4096": start 4: not a multiple of 8, a logical block of 4096 bytes: invalid`
	if err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

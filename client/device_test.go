package client

import "testing"

// Without a sequence number, a device of tables is told from others by its tables and files.
func TestDeviceOfTables(t *testing.T) {
	device := func(table, device string) *Device {
		return &Device{Table: table, Files: []DeviceFile{{File: "/a", Device: device, Inode: 5}}}
	}
	one := device("0 8 linear /a 0\n", "8:1")
	for _, tt := range []struct {
		other *Device
		same  bool
	}{
		{device("0 8 linear /a 0\n", "8:1"), true},
		{device("0 8 linear /a 8\n", "8:1"), false},
		{device("0 8 linear /a 0\n", "8:2"), false},
		{&Device{}, false},
	} {
		if one.isOrLike(tt.other) != tt.same {
			t.Errorf("%+v is like %+v: %v", one, tt.other, !tt.same)
		}
	}
}

package main

import "testing"

func TestDeviceID(t *testing.T) {
	for _, tt := range []struct {
		arg string
		id  uint32
		ok  bool
	}{
		{"0", 0, true},
		{"7", 7, true},
		{"1048575", 1048575, true},
		{"1048576", 0, false},
		{"/dev/ublkb7", 7, true},
		{"/dev/ublkc7", 7, true},
		{"/dev//ublkb7/", 7, true},
		{"/dev/ublkb7p1", 0, false},
		{"/dev/ublkd7", 0, false},
		{"/dev/ublkb", 0, false},
		{"", 0, false},
		{"07", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1 ", 0, false},
		{"./7", 0, false},
		{"/dev/ublkb07", 0, false},
		{"/dev/ublkb-1", 0, false},
		{"ublkb7", 0, false},
		{"/tmp/ublkb7", 0, false},
		{"/dev/null", 0, false},
		{"/etc", 0, false},
	} {
		if id, ok := deviceID(tt.arg); id != tt.id || ok != tt.ok {
			t.Errorf("deviceID(%q) is %d, %v, want %d, %v", tt.arg, id, ok, tt.id, tt.ok)
		}
	}
}

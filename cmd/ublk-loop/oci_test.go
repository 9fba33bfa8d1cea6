package main

import "testing"

func TestRuntimeName(t *testing.T) {
	for own, want := range map[string]string{
		"ublk-runc": "runc", "ublk-crun": "crun", "ublk-runc-trusted": "runc-trusted", "ublk-crun-a-b": "crun-a-b",
		"ublk-loop": "", "ublk-loop-snapshotter": "", "runc": "", "ublk-": "", "ublk-runcx": "", "runc-trusted": "", "ublk-losetup": "",
	} {
		name, standsIn := runtimeName(own)
		if standsIn != (want != "") || standsIn && name != want {
			t.Errorf("%s: %q, %v; want %q", own, name, standsIn, want)
		}
	}
}

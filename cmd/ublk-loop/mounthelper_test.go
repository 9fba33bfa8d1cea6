package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
)

func TestParseMount(t *testing.T) {
	for args, want := range map[string]struct {
		command string
		config  loop.Config
	}{
		"/i /d -o rw":                         {"-o rw -- /dev/x /d", loop.Config{}},
		"/i /d":                               {"-- /dev/x /d", loop.Config{}},
		"/i /d -v -n -o ro,noatime,offset=1M": {"-v -n -o ro,noatime -- /dev/x /d", loop.Config{ReadOnly: true, Offset: 1 << 20}},
		"/i /d -o loop,sizelimit=4096,sector-size=4096,direct-io=on,fstype=xfs": {
			"-t xfs -- /dev/x /d", loop.Config{SizeLimit: 4096, SectorSize: 4096, DirectIO: loop.SwitchOn},
		},
		"/i /d -t ublk-loop.ext4 -o rw": {"-t ext4 -o rw -- /dev/x /d", loop.Config{}},
	} {
		r, err := parseMount(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if got := r.command("/dev/x"); !slices.Equal(got, strings.Fields(want.command)) || r.config != want.config || r.image != "/i" {
			t.Errorf("%s: %q, %+v; want %q, %+v", args, got, r.config, want.command, want.config)
		}
	}
	r, err := parseMount(strings.Fields("/i /d -v -o remount,ro,offset=1M"))
	if err != nil || !r.remount || strings.Join(r.again(), " ") != "-v -i -o remount,ro -- /d" {
		t.Errorf("remount: %+v, error %v", r, err)
	}
	if r, err = parseMount(strings.Fields("/i /d -f")); err != nil || r.carryOut(t.Context(), nil) != nil {
		t.Errorf("-f: error %v", err)
	}
	for _, args := range []string{"", "/i", "/i /d -x", "/i /d -o", "/i /d -o offset=x", "/i /d -N 7", "/i /d -o sector-size=3"} {
		if _, err := parseMount(strings.Fields(args)); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}
